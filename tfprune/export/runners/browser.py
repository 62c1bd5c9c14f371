"""`Browser`: a headless Chromium with a page that runs TFLite files in LiteRT.js.

The page is served from 127.0.0.1 under a path that nobody else can guess. It asks for jobs and
posts their answers back, one at a time, as long as the browser runs. It is isolated from other
origins, which gives it a clock of 5 microseconds and threads.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import secrets
import signal
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import numpy as np

from tfprune.errors import MissingDependencyError, VerificationError
from tfprune.export.runners import wasm_setup

START_SECONDS = 90
ANSWER_SECONDS = 300
"""Longer waits are given up. What the browser takes seconds for may take a minute under load."""

_POLL_SECONDS = 5
_TYPES = {".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm"}
_ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class Browser:
    """A headless Chromium that loads and runs TFLite files. As a context manager it is closed.

    Args:
        threads: threads of the runtime.

    Raises:
        MissingDependencyError: the browser does not start, or LiteRT.js does not in it.
    """

    def __init__(self, threads: int = 1):
        self._jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._models = 0
        self._process: subprocess.Popen | None = None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._server = _serve(self._jobs, self._answers)
        atexit.register(self.close)
        try:
            self._start(f"{self._server.address}?threads={threads}")
        except BaseException:
            self.close()
            raise

    def load(self, path: Path) -> int:
        """Load a file and return its number.

        Raises:
            VerificationError: LiteRT.js does not load it.
        """
        content = np.frombuffer(path.read_bytes(), np.uint8)
        self._ask({"load": True, "model": self._models}, {path.name: content})
        self._models += 1
        return self._models - 1

    def run(self, model: int, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of a loaded file."""
        return self._ask({"model": model, "runs": 0}, inputs)[1]

    def time(self, model: int, inputs: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """Return the milliseconds of each call of a loaded file; the first ones are not counted."""
        return self._ask({"model": model, "runs": runs}, inputs)[0]["milliseconds"]

    def close(self) -> None:
        """End the browser with all its processes, and remove its profile."""
        atexit.unregister(self.close)
        if self._process is not None:
            # Chromium is a group of processes.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        self._server.shutdown()
        self._server.server_close()
        self._profile.cleanup()

    def __enter__(self) -> Self:
        """Return the browser."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the browser."""
        self.close()

    def _start(self, address: str) -> None:
        command = [
            wasm_setup.find_browser() or "chromium",
            "--headless",
            f"--user-data-dir={self._profile.name}",
            "--no-first-run",
            "--disable-gpu",
            "--disable-extensions",
            "--disable-background-networking",
            "--allow-scripts-to-close-windows",
            "--disable-dev-shm-usage",  # It is small in containers.
        ]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium's sandbox refuses root.
        log = Path(self._profile.name, "stderr.txt")
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [*command, address],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        try:
            self._answer(START_SECONDS)
        except VerificationError as error:
            words = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise MissingDependencyError(
                f"LiteRT.js does not start in {command[0]}: {error} {' '.join(words)}"
            ) from error

    def _ask(
        self, fields: dict[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        self._jobs.put(_encode(fields, arrays))
        return self._answer(ANSWER_SECONDS)

    def _answer(self, seconds: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                fields, arrays = _decode(self._answers.get(timeout=1))
            except queue.Empty:
                if self._process is None or self._process.poll() is not None:
                    raise VerificationError("the browser ended.") from None
                continue
            if "error" in fields:
                raise VerificationError(fields["error"])
            return fields, arrays
        raise VerificationError(f"the browser gave no answer in {seconds:g} s.")


class _Server(ThreadingHTTPServer):
    """Serves the page and LiteRT.js, hands out jobs, and takes their answers."""

    daemon_threads = True
    jobs: queue.SimpleQueue[bytes]
    answers: queue.SimpleQueue[bytes]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secret = secrets.token_urlsafe()

    def handle_error(self, *_: Any) -> None:
        """Print nothing: a connection that breaks off is the browser being ended."""

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/page.html"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Serve a file."""
        path = self._path()
        packages = wasm_setup.folder() / "node_modules" / "@litertjs"
        if path == "page.html":
            file = Path(__file__).with_name("page.html")
        else:
            file = (packages / (path or "").removeprefix("packages/")).resolve()
        is_ours = path is not None and (path == "page.html" or packages.resolve() in file.parents)
        if is_ours and file.is_file():
            self._send(HTTPStatus.OK, file.read_bytes(), _TYPES.get(file.suffix, "text/plain"))
        else:
            self._send(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Hand out a job, or take an answer."""
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self._path()
        if path == "answer":
            self.server.answers.put(content)
            self._send(HTTPStatus.OK)
        elif path == "job":
            try:
                self._send(HTTPStatus.OK, self.server.jobs.get(timeout=_POLL_SECONDS))
            except queue.Empty:
                self._send(HTTPStatus.NO_CONTENT)
        else:
            self._send(HTTPStatus.NOT_FOUND)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def _path(self) -> str | None:
        """Return what is asked for; None without the secret."""
        path, prefix = self.path.partition("?")[0], f"/{self.server.secret}/"
        return path.removeprefix(prefix) if path.startswith(prefix) else None

    def _send(self, status: HTTPStatus, content: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), **_ISOLATION}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _serve(jobs: queue.SimpleQueue[bytes], answers: queue.SimpleQueue[bytes]) -> _Server:
    server = _Server()
    server.jobs, server.answers = jobs, answers
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _encode(fields: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a message: the length of its JSON, the JSON, and the arrays that it describes."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    described = [
        {"name": name, "dtype": str(array.dtype), "shape": array.shape, "bytes": array.nbytes}
        for name, array in contiguous.items()
    ]
    header = json.dumps({**fields, "arrays": described}).encode()
    content = [array.tobytes() for array in contiguous.values()]
    return b"".join([struct.pack("<I", len(header)), header, *content])


def _decode(message: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    (length,) = struct.unpack_from("<I", message)
    offset = 4 + length
    fields = json.loads(message[4:offset])
    arrays = {}
    for entry in fields.pop("arrays"):
        content = message[offset : offset + entry["bytes"]]
        array = np.frombuffer(content, entry["dtype"]).reshape(entry["shape"])
        arrays[entry["name"]] = array
        offset += entry["bytes"]
    return fields, arrays

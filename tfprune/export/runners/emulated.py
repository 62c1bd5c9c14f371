"""Runners on emulated processors: LiteRT in a process under qemu, kept while it is asked.

There XNNPACK runs sparse models in its sparse mode, as phones and browsers do; on x86 with AVX it
does not, and what is wrong in that mode looks right. Times are those of the emulator.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import VerificationError
from tfprune.export.runners import arm64_setup, litert_worker
from tfprune.export.runners.base import TfliteRunner

ANSWER_SECONDS = 600
"""A call that takes longer is given up."""


class EmulatedRunner(TfliteRunner):
    """A TFLite file in LiteRT on an emulated processor. Subclasses say which interpreter that is.

    Args:
        path: the file.
        threads: threads of the interpreter.
    """

    EMULATOR: str
    MAX_RUNS = 2
    MAX_EXAMPLES = 2

    def __init__(self, path: Path, threads: int):
        self.threads = threads
        self.runtime = self._runtime()
        self._file = path.name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process.
        command, environment = self._interpreter()
        self._process = subprocess.Popen(
            [*command, litert_worker.__file__, str(path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **environment},
        )
        try:
            self._answer()  # That the file is loaded.
        except BaseException:
            self.close()
            raise

    @classmethod
    @abstractmethod
    def _interpreter(cls) -> tuple[list[str], dict[str, str]]:
        """Return the command of a Python with LiteRT, and its environment variables."""

    @classmethod
    @abstractmethod
    def _runtime(cls) -> str:
        """Return name and version."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Runner.run`."""
        return self._ask(inputs, runs=0)[1]

    def time(self, inputs: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """See `Runner.time`; one call is the warm-up, and outputs that were asked for are too."""
        return self._ask(inputs, runs)[0]["milliseconds"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _ask(
        self, inputs: Mapping[str, np.ndarray], runs: int
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        # If it has ended, reading the answer finds out why.
        with contextlib.suppress(BrokenPipeError):
            litert_worker.write_message(self._process.stdin, {"runs": runs}, inputs)
        return self._answer()

    def _answer(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        watchdog = threading.Timer(ANSWER_SECONDS, self._process.kill)
        watchdog.start()
        try:
            message = litert_worker.read_message(self._process.stdout)
        finally:
            in_time = watchdog.is_alive()
            watchdog.cancel()
        if message is None:
            reason = self._reason() if in_time else f"no answer in {ANSWER_SECONDS} s."
            raise VerificationError(f"{self._file} does not run on {self.runtime}: {reason}")
        return message

    def _reason(self) -> str:
        """Say why the process ended: its last words, or how it was ended."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        if code < 0 or not lines:
            return f"the process ended with {'signal' if code < 0 else 'code'} {abs(code)}."
        return lines[-1]


class NoAvxRunner(EmulatedRunner):
    """A TFLite file in LiteRT on an emulated x86 processor without AVX.

    It needs nothing but qemu, for it runs the Python and the LiteRT of this process.
    """

    NAME = "no-avx"
    DESCRIPTION = "LiteRT on x86 without AVX (emulated)"
    EMULATOR = "qemu-x86_64"

    @classmethod
    def missing(cls) -> str:
        """See `TfliteRunner.missing`."""
        if platform.machine() != "x86_64":
            return "an x86-64 machine"
        return "" if shutil.which(cls.EMULATOR) else "apt-get install qemu-user"

    @classmethod
    def _interpreter(cls) -> tuple[list[str], dict[str, str]]:
        return [cls.EMULATOR, "-cpu", "Nehalem", sys.executable], {}

    @classmethod
    def _runtime(cls) -> str:
        return f"ai-edge-litert {version('ai-edge-litert')}, x86 without AVX (emulated)"


class Arm64Runner(EmulatedRunner):
    """A TFLite file in LiteRT on an emulated arm64 processor, as phones have.

    It needs an arm64 Python with LiteRT, which `tfprune setup-runtime arm64` unpacks into the cache
    folder of the user.
    """

    NAME = "arm64"
    DESCRIPTION = "LiteRT on arm64, as in phones (emulated)"
    EMULATOR = "qemu-aarch64"

    @classmethod
    def missing(cls) -> str:
        """See `TfliteRunner.missing`."""
        needed = [] if shutil.which(cls.EMULATOR) else ["apt-get install qemu-user"]
        if not arm64_setup.folder().is_dir():
            needed.append("tfprune setup-runtime arm64")
        return " && ".join(needed)

    @classmethod
    def _interpreter(cls) -> tuple[list[str], dict[str, str]]:
        return arm64_setup.interpreter(arm64_setup.folder())

    @classmethod
    def _runtime(cls) -> str:
        return f"ai-edge-litert {arm64_setup.LITERT_VERSION}, arm64 (emulated)"

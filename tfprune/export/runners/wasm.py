"""`WasmRunner`: a TFLite file in LiteRT.js, which is WebAssembly, in a headless browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfprune.errors import VerificationError
from tfprune.export.runners import wasm_setup
from tfprune.export.runners.base import TfliteRunner
from tfprune.export.runners.browser import Browser


class WasmRunner(TfliteRunner):
    """A TFLite file in LiteRT.js, in a headless Chromium of its own unless one is given.

    It needs Chromium, and LiteRT.js, which `tfprune setup-runtime wasm` installs into the cache
    folder of the user.

    Args:
        path: the file.
        threads: threads of the runtime.
        browser: a running one, which stays open; it keeps its number of threads.
    """

    NAME = "wasm"
    DESCRIPTION = "LiteRT.js in a browser (Chromium, WebAssembly)"
    MAX_RUNS = 10
    MAX_EXAMPLES = 2

    def __init__(self, path: Path, threads: int, browser: Browser | None = None):
        self.threads = threads
        self.runtime = f"LiteRT.js {wasm_setup.LITERT_JS_VERSION}, WebAssembly in Chromium"
        self._file = path.name
        self._own_browser = Browser(threads) if browser is None else None
        self._browser = browser or self._own_browser
        try:
            self._model = self._explained(self._browser.load, path)
        except BaseException:
            self.close()
            raise

    @classmethod
    def missing(cls) -> str:
        """See `TfliteRunner.missing`."""
        needed = [] if wasm_setup.find_browser() else ["apt-get install chromium"]
        if not wasm_setup.folder().is_dir():
            needed.append("tfprune setup-runtime wasm")
        return " && ".join(needed)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Runner.run`."""
        return self._explained(self._browser.run, self._model, inputs)

    def time(self, inputs: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """See `Runner.time`; each call also makes its output tensors, which is how it is used."""
        return self._explained(self._browser.time, self._model, inputs, runs)

    def close(self) -> None:
        """Close the browser if it is its own."""
        if self._own_browser is not None:
            self._own_browser.close()

    def _explained(self, call, *arguments):
        try:
            return call(*arguments)
        except VerificationError as error:
            raise VerificationError(
                f"{self._file} does not run on {self.runtime}: {error}"
            ) from error

"""`tfprune bench`: measures the runtimes of this machine."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tfprune.errors import InvalidArgumentError, MissingDependencyError

if TYPE_CHECKING:
    import numpy as np

    from tfprune.export.sparse_runtime.compiler import CostModel

_RUNS = 10


def fit_cost_model(name: str) -> CostModel:
    """Time small programs on a runtime, and fit the unit costs of the compiler to them."""
    from tfprune.export.runners import RUNTIMES
    from tfprune.export.runners.browser import Browser
    from tfprune.export.sparse_runtime.compiler.fitting import fit_cost_model as fit

    runner_class = RUNTIMES.get(name)
    if runner_class is None:
        raise InvalidArgumentError(f"expected one of {', '.join(RUNTIMES)}. Received: {name!r}.")
    if command := runner_class.missing():
        raise MissingDependencyError(f"{name} is not installed: {command}")
    options = {"browser": Browser()} if name == "wasm" else {}
    with tempfile.TemporaryDirectory() as folder:

        def milliseconds(content: bytes, inputs: dict[str, np.ndarray]) -> float:
            path = Path(folder, "probe.tflite")
            path.write_bytes(content)
            with runner_class(path, 1, **options) as runner:
                return statistics.median(runner.time(inputs, _RUNS))

        try:
            return fit(milliseconds)
        finally:
            for browser in options.values():
                browser.close()

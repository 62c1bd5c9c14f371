"""`LiteRtRunner`: a TFLite file in LiteRT on this machine, the reference for all other runtimes."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tfprune.export.runners.base import TfliteRunner


class LiteRtRunner(TfliteRunner):
    """A TFLite file in LiteRT (`ai_edge_litert`) in this process, on the CPU with XNNPACK.

    Args:
        path: the file.
        threads: threads of the interpreter.
    """

    NAME = "native"
    DESCRIPTION = f"LiteRT on this machine ({platform.machine()})"
    MAX_RUNS = 1000
    MAX_EXAMPLES = 1000

    def __init__(self, path: Path, threads: int):
        from tfprune.export.runners.litert_worker import LoadedModel

        self.threads = threads
        self.runtime = f"ai-edge-litert {version('ai-edge-litert')}"
        self._model = LoadedModel(str(path), threads)

    @classmethod
    def missing(cls) -> str:
        """See `TfliteRunner.missing`; tfprune depends on LiteRT."""
        return ""

    @property
    def inputs(self) -> dict[str, dict]:
        """Shapes and dtypes of the inputs; see `LoadedModel`."""
        return self._model.inputs

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Runner.run`."""
        return self._model.run(inputs)

    def time(self, inputs: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """See `Runner.time`; copying the inputs in is not counted."""
        from tfprune.export.runners.litert_worker import WARM_UP

        return self._model.time(inputs, runs, WARM_UP)

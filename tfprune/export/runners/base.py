"""`Runner`: an artifact, loaded in a runtime; and `TfliteRunner`, one of the runtimes of TFLite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np


class Runner(ABC):
    """An artifact, loaded in its runtime. As a context manager it is closed at the end.

    Attributes:
        runtime: name and version of the runtime.
        threads: threads that it may use.
    """

    runtime: str
    threads: int

    @abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs.

        Args:
            inputs: one batch, by input name of the signature.

        Returns:
            The outputs by name: the keys of a dict output, else `output_0`, `output_1`, ...
        """

    @abstractmethod
    def time(self, inputs: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """Return the milliseconds that each of `runs` calls took, after a warm-up."""

    def close(self) -> None:  # noqa: B027 - most have nothing to end.
        """End what was started for this artifact; a closed runner is not used again."""

    def __enter__(self) -> Self:
        """Return the runner."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the runner."""
        self.close()


class TfliteRunner(Runner):
    """A `.tflite` file in one of the runtimes that it may ship to.

    Args:
        path: the file.
        threads: threads of the runtime.

    Attributes:
        NAME: what users call the runtime.
        DESCRIPTION: what it is, in a few words.
        MAX_RUNS: timed calls that are enough; an emulator takes seconds for each.
        MAX_EXAMPLES: examples that are enough to compare on, likewise.
    """

    NAME: ClassVar[str]
    DESCRIPTION: ClassVar[str]
    MAX_RUNS: ClassVar[int]
    MAX_EXAMPLES: ClassVar[int]

    @abstractmethod
    def __init__(self, path: Path, threads: int):
        """Load the file.

        Raises:
            VerificationError: the runtime does not load it.
            MissingDependencyError: the runtime is missing or does not start.
        """

    @classmethod
    @abstractmethod
    def missing(cls) -> str:
        """Return the commands that install what is missing to run this; empty if nothing is."""

"""`cross_check`: one `.tflite` file of anyone's making in all runtimes, on the same inputs.

The reference is LiteRT on this machine. Nothing here needs TensorFlow, and the file may lack a
signature: inputs are then random in the ranges that most models take.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import MissingDependencyError
from tfprune.export.runners import LiteRtRunner, TfliteRunner, resolve_runtimes, split_runtimes
from tfprune.export.sparse_runtime.graph import read_graph
from tfprune.text_table import align_columns

FLOAT_TOLERANCE = 1e-4
INTEGER_TOLERANCE = 0.05
"""For files with 8-bit tensors: processors round them in their own ways."""


@dataclass(frozen=True)
class RuntimeOutcome:
    """A file in one runtime.

    Args:
        name: the short name of the runtime.
        runtime: name and version.
        latency_ms: median time of a call; None if it does not run.
        difference: the largest one from the reference: of floats as a fraction of the largest value
            of the output, of 8- and 16-bit integers as a fraction of their range; of other
            integers, how many differ. None without outputs of both.
        error: why it does not run; empty if it does.
    """

    name: str
    runtime: str
    latency_ms: float | None
    difference: float | None
    error: str = ""


@dataclass(frozen=True)
class CrossCheck:
    """A file in all runtimes.

    Args:
        file: the file.
        outcomes: one per runtime, the reference first.
        tolerance: what a difference may be.
        seed: seed of the random inputs.
        missing: how to install the runtimes that it was not run on, by name.
    """

    file: str
    outcomes: tuple[RuntimeOutcome, ...]
    tolerance: float
    seed: int
    missing: dict[str, str]

    @property
    def is_same(self) -> bool:
        """Whether it runs in every runtime, and computes the same."""
        return all(self._is_same(outcome) for outcome in self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "is_same": self.is_same}

    def __str__(self) -> str:
        """Return the outcomes as a table."""
        rows = [["runtime", "time", "difference", "verdict", ""]]
        for outcome in self.outcomes:
            time, difference = outcome.latency_ms, outcome.difference
            reference = outcome is self.outcomes[0] and not outcome.error
            verdict = "same" if self._is_same(outcome) else "DIFFERS"
            if outcome.error:
                verdict = "DOES NOT RUN"
            rows.append(
                [
                    outcome.name,
                    "-" if time is None else f"{time:.3g} ms",
                    "-" if difference is None else f"{difference:.1e}",
                    "reference" if reference else verdict,
                    outcome.error or outcome.runtime,
                ]
            )
        lines = align_columns(rows, right=(1, 2))
        needs = [f"{name} ({command})" for name, command in self.missing.items()]
        more = [f"not run on {', '.join(needs)}"] if needs else []
        allowed = (
            f"random inputs, seed {self.seed}; a difference up to {self.tolerance:g} is allowed"
        )
        return "\n".join([*lines, "", allowed, *more])

    def _is_same(self, outcome: RuntimeOutcome) -> bool:
        # Written so that NaN is no match.
        return outcome.difference is not None and outcome.difference <= self.tolerance


def cross_check(
    path: str | os.PathLike,
    runtimes: str | Iterable[str] = "auto",
    *,
    seed: int = 0,
    runs: int = 10,
    threads: int = 1,
) -> CrossCheck:
    """Run a `.tflite` file in several runtimes and compare the outputs.

    Args:
        path: the file.
        runtimes: names of `tfprune.export.runners`, or "all"; the reference is always run. By
            default all that are installed.
        seed: seed of the random inputs.
        runs: timed calls; emulators do fewer.
        threads: threads of each runtime.

    Returns:
        The outcomes; `str` of it is a table.

    Raises:
        InvalidArgumentError: a runtime is unknown.
        MissingDependencyError: a runtime that is asked for is not installed.
        ArtifactError: the file is missing, or no TFLite model.
    """
    path = Path(path)
    chosen, missing = split_runtimes() if runtimes == "auto" else (resolve_runtimes(runtimes), {})
    graph = read_graph(path)
    small = any(tensor.dtype in ("INT4", "INT8", "UINT8") for tensor in graph.tensors)
    reference, inputs, expected = _reference(path, seed, runs, threads)
    outcomes = [reference]
    for runner in chosen:
        if runner is not LiteRtRunner:
            outcomes.append(_outcome(runner, path, inputs, expected, runs=runs, threads=threads))
    tolerance = INTEGER_TOLERANCE if small else FLOAT_TOLERANCE
    return CrossCheck(os.fspath(path), tuple(outcomes), tolerance, seed, missing)


def random_inputs(details: Mapping[str, Mapping[str, Any]], seed: int) -> dict[str, np.ndarray]:
    """Draw inputs: floats in [0, 1), booleans, 8-bit integers in their range, others 0 or 1.

    Args:
        details: the inputs by name, as LiteRT describes them; a size that is open is taken as 1.
        seed: seed of the random generator.

    Example:
        >>> inputs = random_inputs({"ids": {"shape": (1, 4), "dtype": np.int32}}, seed=0)
        >>> inputs["ids"].tolist()
        [[1, 1, 1, 0]]
    """
    rng = np.random.default_rng(seed)
    inputs = {}
    for name, detail in details.items():
        dtype = np.dtype(detail["dtype"])
        shape = tuple(detail["shape"])
        if dtype.kind == "f":
            inputs[name] = rng.random(shape).astype(dtype)
        elif dtype.kind in "iu" and dtype.itemsize == 1:
            limits = np.iinfo(dtype)
            inputs[name] = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        else:
            inputs[name] = rng.integers(0, 2, shape).astype(dtype)
    return inputs


def _reference(
    path: Path, seed: int, runs: int, threads: int
) -> tuple[RuntimeOutcome, dict[str, np.ndarray] | None, dict[str, np.ndarray] | None]:
    """Return the outcome here, the inputs and the outputs; None for those if it does not run."""
    try:
        with LiteRtRunner(path, threads) as runner:
            inputs = random_inputs(runner.inputs, seed)
            expected = runner.run(inputs)
            time = statistics.median(runner.time(inputs, runs))
    # LiteRT raises RuntimeError or ValueError, by what it stumbles over.
    except Exception as error:
        reason = " ".join(str(error).split())
        return RuntimeOutcome(LiteRtRunner.NAME, "", None, None, reason), None, None
    return RuntimeOutcome(LiteRtRunner.NAME, runner.runtime, time, 0.0), inputs, expected


def _outcome(
    runner_class: type[TfliteRunner],
    path: Path,
    inputs: dict[str, np.ndarray] | None,
    expected: dict[str, np.ndarray] | None,
    *,
    runs: int,
    threads: int,
) -> RuntimeOutcome:
    time = difference = None
    try:
        with runner_class(path, threads) as runner:
            if inputs is not None and expected is not None:
                found = runner.run(inputs)
                time = statistics.median(runner.time(inputs, min(runs, runner.MAX_RUNS)))
                difference = max(map(_difference, expected.values(), _aligned(found, expected)))
    except MissingDependencyError:
        raise  # The runtime is broken, not the file.
    except Exception as error:
        return RuntimeOutcome(runner_class.NAME, "", None, None, " ".join(str(error).split()))
    return RuntimeOutcome(runner_class.NAME, runner.runtime, time, difference)


def _aligned(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> Iterable[np.ndarray]:
    """Return outputs in the order of others; a file without a signature may name them otherwise."""
    return [found[name] for name in expected] if set(found) == set(expected) else found.values()


def _difference(expected: np.ndarray, actual: np.ndarray) -> float:
    if expected.shape != actual.shape or not expected.size:
        return 0.0 if expected.shape == actual.shape else float("inf")
    if expected.dtype.kind == "f":
        # What is infinite or NaN here must be so there.
        with np.errstate(invalid="ignore"):
            gaps = np.abs(expected - actual.astype("float64"))
        gaps[(expected == actual) | (np.isnan(expected) & np.isnan(actual))] = 0
        finite = np.abs(expected[np.isfinite(expected)])
        return float(gaps.max() / (np.max(finite, initial=0.0) or 1.0))
    if expected.dtype.kind in "iu" and expected.dtype.itemsize <= 2:
        gaps = np.abs(expected.astype(int) - actual)
        return float(gaps.max() / np.iinfo(expected.dtype).max)
    return float(np.mean(expected != actual))

"""The time that one call takes.

Read the median: on a shared machine the mean is moved by whatever else ran. The minimum is the
least disturbed run. The function must return only when its work is done (for TensorFlow on a GPU,
fetch the result, for example with `.numpy()`).
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfprune.errors import InvalidArgumentError, InvalidTypeError


@dataclass(frozen=True)
class Latency:
    """Wall-clock time of one call.

    Attributes:
        median_ms: median over the runs, in milliseconds.
        min_ms: fastest run, in milliseconds.
        runs: number of timed runs.
    """

    median_ms: float
    min_ms: float
    runs: int

    def __str__(self) -> str:
        return f"{self.median_ms:.3f} ms (fastest {self.min_ms:.3f} ms, {self.runs} runs)"


def measure_latency(function: Callable[[], Any], *, runs: int = 20, warmup: int = 3) -> Latency:
    """Time repeated calls of a function.

    Args:
        function: called without arguments.
        runs: number of timed calls, at least 1.
        warmup: number of calls before them, whose time (tracing, caches) is not counted.

    Returns:
        The `Latency`: median and minimum over the runs.

    Raises:
        InvalidTypeError: if `function` cannot be called.
        InvalidArgumentError: if `runs` is below 1 or `warmup` is negative.

    Example:
        >>> measure_latency(lambda: sum(range(1000)), runs=5).runs
        5
    """
    if not callable(function):
        raise InvalidTypeError(
            "`function` must be callable without arguments, such as `lambda: model(x)`. "
            f"Received: {function!r}."
        )
    if runs < 1:
        raise InvalidArgumentError(f"`runs` must be at least 1. Received: {runs}.")
    if warmup < 0:
        raise InvalidArgumentError(f"`warmup` must not be negative. Received: {warmup}.")
    times = time_calls(function, runs, warmup)
    return Latency(median_ms=statistics.median(times), min_ms=min(times), runs=runs)


def time_calls(function: Callable[[], Any], runs: int, warmup: int = 3) -> list[float]:
    """Return the milliseconds that each of `runs` calls takes, after `warmup` calls before them."""
    for _ in range(warmup):
        function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1e3)
    return times

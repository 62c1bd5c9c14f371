"""Schedules that lead from one sparsity to another.

    s(t) = final + (initial - final) * (1 - p)**power,  p = (t - begin) / (end - begin)

is the cubic ramp of Zhu & Gupta (2017), "To prune, or not to prune", with power = 3.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from dataclasses import dataclass

from tfprune.errors import InvalidArgumentError
from tfprune.moments import Fraction, Step
from tfprune.schedules.base import Schedule, check_sparsity


@dataclass(frozen=True)
class Ramp(Schedule):
    """Base of the schedules that go from one sparsity to another between two steps.

    By default the ramp takes the first three quarters of the run and leaves the last to recover.

    Args:
        initial_sparsity: sparsity at `begin_step`, in [0, 1).
        final_sparsity: sparsity at `end_step`, in [0, 1).
        begin_step: step of the first update.
        end_step: step of the last update.
        frequency: steps between updates.
    """

    initial_sparsity: float
    final_sparsity: float
    end_step: Step | None = dataclasses.field(default=Fraction(0.75), kw_only=True)

    def __post_init__(self) -> None:
        check_sparsity("initial_sparsity", self.initial_sparsity)
        check_sparsity("final_sparsity", self.final_sparsity)
        if self.end_step is None:
            raise InvalidArgumentError(
                f"{type(self).__name__} needs an `end_step`: a step, `Epochs` or `Fraction`."
            )
        super().__post_init__()

    def sparsity_at(self, step: int) -> float:
        """Return the sparsity at `step`, clipped to the two ends of the ramp."""
        progress = self.progress_at(step)
        if progress in (0.0, 1.0):
            return float(self.final_sparsity if progress else self.initial_sparsity)
        return self._between(progress)

    @abc.abstractmethod
    def _between(self, progress: float) -> float:
        """Return the sparsity at a progress strictly between 0 and 1."""


@dataclass(frozen=True)
class PolynomialDecay(Ramp):
    """Polynomial ramp, fast first and slow at the end (Zhu & Gupta, 2017).

    Args:
        initial_sparsity: sparsity at `begin_step`.
        final_sparsity: sparsity at `end_step`.
        power: exponent of the ramp; 3 is the published one.
        begin_step: step of the first update.
        end_step: step of the last update.
        frequency: steps between updates.

    Example:
        >>> ramp = PolynomialDecay(0.2, 0.8, begin_step=100, end_step=110)
        >>> [round(ramp.sparsity_at(step), 4) for step in (100, 101, 102, 105, 109, 110)]
        [0.2, 0.3626, 0.4928, 0.725, 0.7994, 0.8]
    """

    power: float = dataclasses.field(default=3.0, kw_only=True)

    def __post_init__(self) -> None:
        if not self.power > 0:
            raise InvalidArgumentError(f"`power` must be above 0. Received: {self.power!r}")
        super().__post_init__()

    def _between(self, progress: float) -> float:
        span = self.initial_sparsity - self.final_sparsity
        return float(span * (1 - progress) ** self.power + self.final_sparsity)


@dataclass(frozen=True)
class LinearDecay(Ramp):
    """Straight line from the initial to the final sparsity.

    Example:
        >>> LinearDecay(0.0, 0.8, begin_step=0, end_step=100).sparsity_at(50)
        0.4
    """

    def _between(self, progress: float) -> float:
        return self.initial_sparsity + (self.final_sparsity - self.initial_sparsity) * progress


@dataclass(frozen=True)
class CosineDecay(Ramp):
    """Half a cosine: slow at both ends, fastest in the middle.

    Example:
        >>> round(CosineDecay(0.0, 0.8, begin_step=0, end_step=100).sparsity_at(50), 6)
        0.4
    """

    def _between(self, progress: float) -> float:
        remaining = (1 + math.cos(math.pi * progress)) / 2
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * remaining


@dataclass(frozen=True)
class ExponentialDecay(Ramp):
    """The density 1 - s shrinks by the same factor in every step.

    Example:
        >>> ramp = ExponentialDecay(0.0, 0.75, begin_step=0, end_step=100)
        >>> ramp.sparsity_at(50)  # density 1 -> 0.5 -> 0.25
        0.5
    """

    def _between(self, progress: float) -> float:
        first, last = 1 - self.initial_sparsity, 1 - self.final_sparsity
        return float(1 - first * (last / first) ** progress)


@dataclass(frozen=True)
class OneCycle(Ramp):
    """Logistic ramp of one-cycle pruning (Hubens et al., 2021), for pruning from scratch.

        s(p) = initial + (final - initial) * (1 + exp(b - a)) / (1 + exp(b - a p)),  a = 14, b = 5

    Example:
        >>> ramp = OneCycle(0.0, 0.9, begin_step=0, end_step=100)
        >>> [round(ramp.sparsity_at(step), 3) for step in (0, 20, 50, 100)]
        [0.0, 0.09, 0.793, 0.9]
    """

    steepness: float = dataclasses.field(default=14.0, kw_only=True)
    offset: float = dataclasses.field(default=5.0, kw_only=True)

    def _between(self, progress: float) -> float:
        rise = 1 + math.exp(self.offset - self.steepness)
        rise /= 1 + math.exp(self.offset - self.steepness * progress)
        return self.initial_sparsity + (self.final_sparsity - self.initial_sparsity) * rise

"""`CutPlanner`: from a model and a target to the units that should go.

`tfprune.shrink` asks it once; `tfprune.callbacks.ShrinkSchedule` again and again while a model
trains, for a little more each time.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.selection import Selector
from tfprune.structured.graph import ChannelGraph
from tfprune.structured.importance import check_criterion, score_units
from tfprune.structured.meters import Meter, meter_for
from tfprune.structured.protection import select_groups
from tfprune.structured.ranking import (
    NORMALIZATIONS,
    SCOPES,
    RankedGroup,
    Rounding,
    rank,
    within_limits,
)
from tfprune.targets import Channels, Target

_TOLERANCE = 0.01
"""A target is reached if the result is this close to it."""

_STEPS = 8
"""How many single widths are changed to come closer to a target after rounding."""


@dataclass(frozen=True)
class Limits:
    """How the choice is made, and what it must leave; the arguments of `tfprune.shrink`.

    Raises:
        InvalidArgumentError: for a value out of range.
        InvalidTypeError: for a number that is not whole.
    """

    scope: str = "local"
    normalize: str | None = "mean"
    min_channels: int = 1
    max_ratio: float = 1.0
    round_to: int = 1

    def __post_init__(self) -> None:
        _check_choice("scope", self.scope, SCOPES)
        _check_choice("normalize", self.normalize, NORMALIZATIONS)
        _check_number("min_channels", self.min_channels)
        _check_number("round_to", self.round_to)
        if not 0 < self.max_ratio <= 1:
            raise InvalidArgumentError(f"`max_ratio` must be in (0, 1]. Received: {self.max_ratio}")


class Choice:
    """An order in which units go, of which a target takes the beginning.

    Args:
        sequence: the units that may go, in order.
        rounding: keeps widths at multiples.
        size: number of ids in the graph.
        meter: says what a cut leaves.
        gone: units that have gone already, a boolean array over all ids.
    """

    def __init__(
        self,
        sequence: np.ndarray,
        rounding: Rounding,
        size: int,
        meter: Meter,
        gone: np.ndarray | None = None,
    ) -> None:
        self._sequence, self._rounding = sequence, rounding
        self._size, self._meter = size, meter
        self._gone = np.zeros(size, bool) if gone is None else gone

    @property
    def longest(self) -> int:
        """How many units may go."""
        return len(self._sequence)

    def least(self) -> float:
        """Return what the largest cut leaves."""
        return self._excess(self.longest, 0.0)

    def cut(self, wanted: float, allowed: float) -> np.ndarray:
        """Return the units to cut for about the wanted amount to be left.

        Args:
            wanted: the amount.
            allowed: how far the result may be off.

        Returns:
            A boolean array over all ids, true for what goes.
        """
        low, high = 0, self.longest
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._excess(middle, wanted) <= 0 else (middle + 1, high)
        nearest = (low, max(low - 1, 0))
        count = min(nearest, key=lambda count: abs(self._excess(count, wanted)))
        return self._rounded(count, wanted, allowed)

    def _rounded(self, count: int, wanted: float, allowed: float) -> np.ndarray:
        """Round the widths, and then change single ones by a step while that leads closer."""
        widths = self._rounding.widths(count)
        if widths is None:
            return self._dead(np.arange(count))

        def miss(widths: tuple[int, ...]) -> float:
            dead = self._dead(self._rounding.places(widths))
            # What has gone does not come back for the sake of a target.
            is_back = (self._gone & ~dead).any()
            return np.inf if is_back else abs(self._meter.estimate(dead) - wanted)

        for _ in range(_STEPS):
            best = min(self._rounding.neighbours(widths), key=miss, default=widths)
            if miss(widths) <= allowed or miss(best) >= miss(widths):
                break
            widths = best
        return self._dead(self._rounding.places(widths))

    def _excess(self, count: int, wanted: float) -> float:
        widths = self._rounding.widths(count)
        places = np.arange(count) if widths is None else self._rounding.places(widths)
        return self._meter.estimate(self._dead(places)) - wanted

    def _dead(self, places: np.ndarray) -> np.ndarray:
        dead = np.zeros(self._size, bool)
        dead[self._sequence[places]] = True
        return dead


class CutPlanner:
    """Chooses the units of a model that matter least, as many as a target asks.

    Args:
        model: a built Functional or Sequential model.
        target: as in `tfprune.shrink`, and all others too.
        criterion: how units are scored.
        data: for criteria that look at data.
        loss: for criteria that need one.
        limits: how the choice is made, and what it must leave.
        include: layers whose channels may go.
        exclude: layers whose channels stay.
        layer_norm: the mode of the graph.
        verbose: whether a progress bar is shown while data are read.

    Raises:
        InvalidArgumentError: as `tfprune.shrink`.
        InvalidTypeError: as `tfprune.shrink`.
        UnsupportedModelError: as `tfprune.shrink`.
    """

    def __init__(
        self,
        model: keras.Model,
        target: float | Target,
        criterion: Any,
        *,
        data: Any,
        loss: Any,
        limits: Limits,
        include: Selector | Iterable[Selector] | None,
        exclude: Selector | Iterable[Selector] | None,
        layer_norm: str,
        verbose: bool,
    ) -> None:
        target = check_target(target)
        self._criterion = check_criterion(criterion, data)
        self._limits, self._evidence = limits, {"data": data, "loss": loss, "verbose": verbose}
        self.graph = ChannelGraph(model, layer_norm=layer_norm)
        self._groups = select_groups(self.graph, include, exclude)
        # Nothing of this depends on scores, so it is refused before any is computed.
        self._rounding(np.zeros(0, np.int64), self._ranked(np.zeros(self.graph.size)))
        units = np.concatenate([group.units for group in self._groups])
        self.meter = meter_for(target, self.graph, units)
        self.wanted = target.wanted(self.meter.total)
        self.allowed = max(_TOLERANCE * self.wanted, self.meter.grain)
        if self.wanted >= self.meter.total:
            raise InvalidArgumentError(
                f"The model has {self.meter.total:,.0f} {self.meter.unit} already, no more than "
                f"the {self.wanted:,.0f} that are to remain."
            )

    def choose(self, gone: np.ndarray | None = None) -> Choice:
        """Score the units as they are now, and put them in order.

        Args:
            gone: units that go first whatever their scores, a boolean array over all ids.

        Raises:
            InvalidArgumentError: if the target is out of reach within the limits.
        """
        scores = score_units(self.graph, self._groups, self._criterion, **self._evidence)
        ranked, limits = self._ranked(scores), self._limits
        order = rank(ranked, limits.scope, limits.normalize)
        if gone is not None:
            order = np.concatenate([order[gone[order]], order[~gone[order]]])
        sequence = within_limits(
            order,
            ranked,
            self.graph.bound_axes(),
            min_channels=limits.min_channels,
            max_ratio=limits.max_ratio,
        )
        rounding = self._rounding(sequence, ranked)
        choice = Choice(sequence, rounding, self.graph.size, self.meter, gone)
        least = choice.least()
        if least > self.wanted + self.allowed:
            raise InvalidArgumentError(
                f"The target is out of reach: of {self.meter.total:,.0f} {self.meter.unit}, "
                f"{self.wanted:,.0f} are to remain, and within the limits set at least "
                f"{least:,.0f} do. Ask for less, protect fewer layers, or let `max_ratio` and "
                "`min_channels` take more."
            )
        return choice

    def report(self, reached: float, stacklevel: int) -> None:
        """Warn if what was reached is not what was wanted."""
        if abs(reached - self.wanted) > self.allowed:
            warnings.warn(
                f"{reached:,.0f} {self.meter.unit} remain, and {self.wanted:,.0f} were asked for: "
                "whole channels and the limits set allow nothing closer.",
                stacklevel=stacklevel,
            )

    def _ranked(self, scores: np.ndarray) -> list[RankedGroup]:
        return [
            RankedGroup(group.name, group.units, scores[group.units], group.topology)
            for group in self._groups
        ]

    def _rounding(self, sequence: np.ndarray, ranked: list[RankedGroup]) -> Rounding:
        makers = [axis.units for group in self._groups for axis in group.makers]
        return Rounding(sequence, ranked, makers, self._limits.round_to)


def check_target(target: Any) -> Target:
    """Return a target; a number stands for a fraction of channels.

    Raises:
        InvalidArgumentError: for a number that is no fraction.
        InvalidTypeError: for something else.
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, bool) or not isinstance(target, int | float | np.number):
        raise InvalidTypeError(
            "`target` must be the fraction of channels to keep, such as 0.5, or one of "
            f"tfprune.targets, such as Flops(0.5). Received: {target!r}"
        )
    return Channels(float(target))


def is_shown(verbose: bool | str) -> bool:
    """Return whether a progress bar is shown; `"auto"` is on a terminal."""
    return sys.stdout.isatty() if verbose == "auto" else bool(verbose)


def _check_choice(name: str, value: Any, known: Iterable[Any]) -> None:
    if value not in tuple(known):
        names = ", ".join(map(repr, known))
        raise InvalidArgumentError(f"`{name}` must be one of {names}. Received: {value!r}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"`{name}` must be a whole number. Received: {value!r}")
    if value < 1:
        raise InvalidArgumentError(f"`{name}` must be at least 1. Received: {value}")

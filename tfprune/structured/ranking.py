"""In which order units go: from scores to one sequence, of which a target takes the beginning.

numpy only. Every limit - channels that must stay on an axis, the largest share of a group - is kept
by the sequence as a whole, and so by each beginning of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tfprune.errors import InvalidArgumentError

SCOPES = ("local", "global", "isomorphic")


@dataclass(frozen=True, eq=False)
class RankedGroup:
    """A group to choose from.

    Args:
        name: its name in messages.
        units: integer array of its units.
        scores: float array, one per unit; the lowest go first.
        topology: equal for groups that are built alike.
    """

    name: str
    units: np.ndarray
    scores: np.ndarray
    topology: object = None


def _lamp(scores: np.ndarray) -> np.ndarray:
    """Return each score's share of all those that are at least as large."""
    order = np.argsort(scores, kind="stable")
    rest = np.cumsum(scores[order][::-1])[::-1]
    shares = np.empty(len(scores))
    shares[order] = scores[order] / np.maximum(rest, np.finfo(float).tiny)
    return shares


def _divided(scores: np.ndarray, scale: float) -> np.ndarray:
    return scores / scale if scale > 0 else scores


NORMALIZATIONS: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda scores: scores,
    "lamp": _lamp,
    "max": lambda scores: _divided(scores, scores.max()),
    "mean": lambda scores: _divided(scores, scores.mean()),
    "sum": lambda scores: _divided(scores, scores.sum()),
}
"""What makes scores of different groups comparable, by name."""


def rank(groups: Sequence[RankedGroup], scope: str, normalize: str | None) -> np.ndarray:
    """Return the units of all groups, those that should go first in front.

    Args:
        groups: the groups.
        scope: `"local"`, every group loses the same share; `"global"`, the lowest normalized scores
            of all groups go; `"isomorphic"`, as global, but each set of groups that are built alike
            loses the same share (Fang et al., 2024, "Isomorphic Pruning for Vision Models").
        normalize: a key of `NORMALIZATIONS`, without effect in local scope.

    Example:
        >>> groups = [RankedGroup("a", np.array([0, 1]), np.array([1.0, 3.0])),
        ...           RankedGroup("b", np.array([2, 3]), np.array([20.0, 10.0]))]
        >>> rank(groups, "local", "mean").tolist(), rank(groups, "global", None).tolist()
        ([0, 3, 1, 2], [0, 1, 3, 2])
    """
    sets: dict[object, list[RankedGroup]] = {}
    for index, group in enumerate(groups):
        key = {"local": index, "global": None, "isomorphic": group.topology}[scope]
        sets.setdefault(key, []).append(group)
    units, keys = [], []
    for members in sets.values():
        inside = np.concatenate([group.units for group in members])
        scores = np.concatenate([NORMALIZATIONS[normalize](group.scores) for group in members])
        places = np.empty(len(inside))
        # Stable: ties go in the order of the channels, so that two runs cut the same.
        places[np.argsort(scores, kind="stable")] = (np.arange(len(inside)) + 0.5) / len(inside)
        units.append(inside)
        keys.append(places)
    order = np.argsort(np.concatenate(keys), kind="stable")
    return np.concatenate(units)[order]


def within_limits(
    order: np.ndarray,
    groups: Sequence[RankedGroup],
    axes: Sequence[np.ndarray],
    *,
    min_channels: int,
    max_ratio: float,
) -> np.ndarray:
    """Leave those units out of a sequence that may not go when those before them are gone.

    Args:
        order: units, from `rank`.
        groups: the groups.
        axes: the units along each axis that must not go empty; -1 for channels that stay.
        min_channels: so many channels stay on every axis, or all where there are fewer.
        max_ratio: largest share of a group that may go.

    Returns:
        The part of `order` that may go as a whole.
    """
    group_of = {unit: i for i, group in enumerate(groups) for unit in group.units.tolist()}
    allowed = [int(len(group.units) * max_ratio + 1e-9) for group in groups]
    left, on_axes = [], {}
    for axis in axes:
        present, counts = np.unique(axis, return_counts=True)
        for unit, count in zip(present.tolist(), counts.tolist(), strict=True):
            if unit >= 0:
                on_axes.setdefault(unit, []).append((len(left), count))
        left.append(len(axis) - min(min_channels, len(axis)))
    sequence = []
    for unit in order.tolist():
        group, places = group_of[unit], on_axes.get(unit, ())
        if not allowed[group] or any(left[axis] < count for axis, count in places):
            continue
        allowed[group] -= 1
        for axis, count in places:
            left[axis] -= count
        sequence.append(unit)
    return np.array(sequence, np.int64)


class Rounding:
    """Keeps widths at multiples of a number.

    Units of a group that lie on the same axes are interchangeable; of each such class so many stay
    that every axis is a multiple - or all of them.

    Args:
        sequence: the units that may go, in order.
        groups: the groups.
        axes: as in `within_limits`; those of layers that make channels.
        multiple: the number.

    Raises:
        InvalidArgumentError: if a group has fewer channels than the multiple.
    """

    def __init__(
        self,
        sequence: np.ndarray,
        groups: Sequence[RankedGroup],
        axes: Sequence[np.ndarray],
        multiple: int,
    ) -> None:
        self._classes: list[tuple[np.ndarray, int, int]] = []
        if multiple == 1:
            return
        counts: dict[int, list[tuple[int, int]]] = {}
        for place, axis in enumerate(axes):
            present, times = np.unique(axis, return_counts=True)
            for unit, count in zip(present.tolist(), times.tolist(), strict=True):
                counts.setdefault(unit, []).append((place, count))
        position = {unit: i for i, unit in enumerate(sequence.tolist())}
        too_narrow = []
        for group in groups:
            classes: dict[tuple, list[int]] = {}
            for unit in group.units.tolist():
                classes.setdefault(tuple(counts.get(unit, ())), []).append(unit)
            for places, units in classes.items():
                # So many units at a time make a multiple of channels on each of their axes.
                step = math.lcm(*(multiple // math.gcd(multiple, count) for _, count in places))
                if step > len(units):
                    too_narrow.append(group.name)
                free = sorted(position[unit] for unit in units if unit in position)
                self._classes.append((np.array(free, np.int64), len(units), step))
        if too_narrow:
            names = list(dict.fromkeys(too_narrow))
            raise InvalidArgumentError(
                f"`round_to={multiple}` is larger than the width of: {', '.join(names)}. Leave "
                f"these alone with `exclude={names!r}`, or pass a smaller number."
            )

    def widths(self, count: int) -> tuple[int, ...] | None:
        """Return how many units of each class stay if about the first `count` are to go.

        Returns:
            For each class the nearest number that fits; `None` if nothing has to be rounded.
        """
        if not self._classes:
            return None
        wanted = [size - int(np.searchsorted(places, count)) for places, size, _ in self._classes]
        return tuple(
            min(self._fitting(index), key=lambda n, w=width: (abs(n - w), -n))
            for index, width in enumerate(wanted)
        )

    def neighbours(self, widths: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield the widths that differ by one step in one class."""
        for index, width in enumerate(widths):
            fitting = self._fitting(index)
            place = fitting.index(width)
            for other in fitting[max(place - 1, 0) : place] + fitting[place + 1 : place + 2]:
                yield (*widths[:index], other, *widths[index + 1 :])

    def places(self, widths: tuple[int, ...]) -> np.ndarray:
        """Return which places of the sequence go for the classes to have some widths."""
        gone = [
            places[: size - width]
            for (places, size, _), width in zip(self._classes, widths, strict=True)
        ]
        return np.concatenate(gone)

    def _fitting(self, index: int) -> list[int]:
        """Return the widths that a class can have: what nothing was cut of always fits."""
        places, size, step = self._classes[index]
        return [n for n in range(step, size, step) if size - n <= len(places)] + [size]

"""From the scores of weights to ranked units, coupled ones joined; and from units back to masks."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from tfprune.errors import InvalidArgumentError
from tfprune.kernel_layout import KernelLayout
from tfprune.patterns import Pattern


@dataclass(frozen=True, eq=False)
class ScoredWeight:
    """What is known of one weight when its mask is computed.

    Args:
        scores: float array of the weight's shape; high means keep.
        layout: roles of the axes; Keras's usual order if `None`.
        alive: boolean array of the same shape, false for weights that stay pruned; `None` if every
            weight may be kept (criteria that score pruned weights can let them grow back).
        path: name for error messages.
        group: weights of one group share their units if the pattern couples them, as the kernels of
            an attention layer do; `None`: this one stands alone.
    """

    scores: np.ndarray
    layout: KernelLayout | None = None
    alive: np.ndarray | None = None
    path: str = "the weight"
    group: Hashable | None = None


@dataclass(eq=False)
class RankedUnits:
    """The units of one weight, or of the coupled weights of one group.

    Args:
        ranks: float array `(units,)`: unit scores, -inf for units that must go, +inf for those that
            must stay.
        sizes: how many weights each unit keeps: one int where all are equal.
        places: for each weight, its place among all, its layout, and what of it may be kept where
            a unit is partly pruned.
        scores: float array `(units,)`, with pruned weights as zeros; only on request.
        borrowed: whether `ranks` is memory of the caller's.
    """

    ranks: np.ndarray
    sizes: int | np.ndarray
    places: list[tuple[int, KernelLayout, np.ndarray | None]]
    scores: np.ndarray | None = None
    borrowed: bool = False

    @property
    def layouts(self) -> list[KernelLayout]:
        """The layouts of the weights."""
        return [layout for _, layout, _ in self.places]

    def fix(self, units: np.ndarray | int, rank: float) -> None:
        """Set the ranks of some units."""
        if self.borrowed:
            self.ranks, self.borrowed = self.ranks.copy(), False
        self.ranks[units] = rank


def rank_units(
    weights: Iterable[ScoredWeight], pattern: Pattern, with_scores: bool = False
) -> list[RankedUnits]:
    """Rank the units of each weight; coupled weights give one entry.

    Raises:
        InvalidArgumentError: if a score is NaN or infinite.
    """
    groups: dict[Hashable, list[RankedUnits]] = {}
    for place, weight in enumerate(weights):
        group = weight.group if pattern.couples else None
        key = (place,) if group is None else (None, group)
        groups.setdefault(key, []).append(_ranked(place, weight, pattern, with_scores))
    return [
        members[0] if len(members) == 1 else _joined(members, pattern)
        for members in groups.values()
    ]


def expand_units(
    units: list[RankedUnits], unit_masks: list[np.ndarray], pattern: Pattern
) -> list[np.ndarray]:
    """Return the weights' masks, in order."""
    masks: dict[int, np.ndarray] = {}
    for entry, unit_mask in zip(units, unit_masks, strict=True):
        for place, layout, keepable in entry.places:
            masks[place] = pattern.expand(unit_mask, layout)
            if keepable is not None:
                masks[place] = masks[place] & keepable
    return [masks[place] for place in range(len(masks))]


def _ranked(place: int, weight: ScoredWeight, pattern: Pattern, with_scores: bool) -> RankedUnits:
    _check_finite(weight)
    scores, alive = weight.scores, weight.alive
    layout = weight.layout or KernelLayout.default(scores.shape)
    ranks = pattern.rank(scores, alive, layout)
    sizes, keepable = pattern.unit_sizes(layout), None
    if alive is not None and not (isinstance(sizes, int) and sizes == 1):
        living = np.rint(pattern.unit_scores(alive.astype(np.float32), layout) * sizes)
        partly = (living < sizes) & ((living > 0) | pattern.couples)
        if partly.any():
            # A mask of another pattern has left units in part: they keep what they still have.
            sizes, keepable = living.astype(np.int64), alive
    unit_scores = None
    if with_scores:
        known = scores if alive is None else np.where(alive, scores, 0)
        unit_scores = pattern.unit_scores(known, layout)
    borrowed = np.may_share_memory(ranks, scores)
    return RankedUnits(ranks, sizes, [(place, layout, keepable)], unit_scores, borrowed)


def _joined(members: list[RankedUnits], pattern: Pattern) -> RankedUnits:
    """Join coupled weights: sizes add up, and scores are means over the weights of all."""
    counts = {member.ranks.size for member in members}
    if len(counts) > 1:
        raise InvalidArgumentError(
            f"Coupled weights must have one number of units. Received: {sorted(counts)}"
        )
    unit_sizes = [pattern.unit_sizes(layout) for member in members for layout in member.layouts]

    def mean(arrays: list[np.ndarray]) -> np.ndarray:
        return sum(a * size for a, size in zip(arrays, unit_sizes, strict=True)) / sum(unit_sizes)

    gone = [member.ranks == -np.inf for member in members]
    ranks = mean([np.where(g, 0, m.ranks) for g, m in zip(gone, members, strict=True)])
    ranks[np.all(gone, axis=0)] = -np.inf
    scores = None if members[0].scores is None else mean([member.scores for member in members])
    places = [place for member in members for place in member.places]
    return RankedUnits(ranks, sum(member.sizes for member in members), places, scores)


def _check_finite(weight: ScoredWeight) -> None:
    scores = weight.scores
    # min and max carry NaN and need no temporary array.
    if scores.size and not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
        bad = int(np.count_nonzero(~np.isfinite(scores)))
        raise InvalidArgumentError(
            f"{weight.path} has {bad} scores that are NaN or infinite, of {scores.size}. "
            "Check the weights and the loss (a diverged training gives NaN); nothing was pruned."
        )

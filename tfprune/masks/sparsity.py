"""Masks of a given sparsity: of one weight, or of several by one threshold over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tfprune.errors import InvalidArgumentError
from tfprune.kernel_layout import KernelLayout
from tfprune.masks.counts import target
from tfprune.masks.largest import keep_best
from tfprune.masks.units import RankedUnits, ScoredWeight, expand_units, rank_units
from tfprune.patterns import Pattern, Unstructured

# 10 * (1 - 0.9) is a hair below 1: what is whole but for that is taken as whole.
_HAIR = 1e-9


def local_mask(
    scores: np.ndarray,
    sparsity: float,
    pattern: Pattern | None = None,
    *,
    layout: KernelLayout | None = None,
    alive: np.ndarray | None = None,
    path: str = "the weight",
) -> np.ndarray:
    """Compute the mask of one weight.

    Args:
        scores: float array of any shape; high means keep.
        sparsity: fraction of zeros in [0, 1).
        pattern: which weights go together; `Unstructured()` by default.
        layout: roles of the axes; Keras's usual order by default.
        alive: boolean array, false for weights that must stay pruned.
        path: name for error messages.

    Returns:
        Boolean array of the same shape, true where the weight is kept.

    Raises:
        InvalidArgumentError: if a score is NaN or infinite.

    Example:
        >>> local_mask(np.array([3.0, 1.0, 2.0, 2.0]), 0.5).tolist()
        [True, False, True, False]
    """
    pattern = pattern or Unstructured()
    units = rank_units([ScoredWeight(scores, layout, alive, path)], pattern)
    return _cut(units, sparsity, pattern, at_least=1)[0]


def global_masks(
    weights: Iterable[ScoredWeight],
    sparsity: float,
    pattern: Pattern | None = None,
    min_sparsity: float = 0.0,
    max_sparsity: float = 1.0,
) -> list[np.ndarray]:
    """Compute masks by one threshold over all weights; every weight keeps its best unit.

    Args:
        weights: the scored weights; consumed one by one, so a generator saves memory.
        sparsity: fraction of zeros in [0, 1), over all weights together.
        pattern: which weights go together; `Unstructured()` by default.
        min_sparsity: no weight (or group of coupled weights) gets less, to one unit.
        max_sparsity: no weight (or group of coupled weights) gets more, to one unit.

    Returns:
        Boolean arrays, one per weight, in order.

    Raises:
        InvalidArgumentError: if a score is NaN or infinite, or `sparsity` is not within the bounds.

    Example:
        >>> first, second = ScoredWeight(np.array([9.0, 8, 7])), ScoredWeight(np.array([1.0]))
        >>> [mask.tolist() for mask in global_masks([first, second], 0.5)]
        [[True, False, False], [True]]
        >>> strong, weak = np.array([9.0, 8, 7, 6]), np.array([4.0, 3, 2, 1])
        >>> weights = [ScoredWeight(strong), ScoredWeight(weak)]
        >>> [int(mask.sum()) for mask in global_masks(weights, 0.5, max_sparsity=0.75)]
        [3, 1]
        >>> [int(mask.sum()) for mask in global_masks(weights, 0.5, min_sparsity=0.5)]
        [2, 2]
    """
    if not min_sparsity <= sparsity <= max_sparsity:
        raise InvalidArgumentError(
            f"A sparsity of {sparsity:g} over all weights is impossible if each has at least "
            f"{min_sparsity:g} and at most {max_sparsity:g}: widen the bounds."
        )
    pattern = pattern or Unstructured()
    units = rank_units(weights, pattern)
    if min_sparsity > 0 or max_sparsity < 1:
        staying = sum(_bound(entry, pattern, min_sparsity, max_sparsity) for entry in units)
    else:
        staying = sum(_protect_best(entry) for entry in units)
    return _cut(units, sparsity, pattern, at_least=staying)


def _cut(
    units: list[RankedUnits], sparsity: float, pattern: Pattern, at_least: int
) -> list[np.ndarray]:
    kept = target([layout for entry in units for layout in entry.layouts], sparsity, pattern)
    ranks, sizes = [entry.ranks for entry in units], [entry.sizes for entry in units]
    return expand_units(units, keep_best(ranks, sizes, kept, at_least=at_least), pattern)


def _protect_best(entry: RankedUnits) -> int:
    """Raise the best unit to +inf, and return 1: a layer without weights would cut the network."""
    best = entry.ranks.argmax()
    if entry.ranks[best] > -np.inf:
        entry.fix(best, np.inf)
    return 1


def _bound(entry: RankedUnits, pattern: Pattern, low: float, high: float) -> int:
    """Raise the units that keep a weight from more than `high` to +inf, and return their number.

    Those that would leave it with less than `low` are lowered to -inf.
    """
    size = sum(layout.size for layout in entry.layouts)
    prunable = sum(pattern.prunable_size(layout) for layout in entry.layouts)
    (stay,) = keep_best(
        [entry.ranks],
        [entry.sizes],
        size - prunable * high,
        rounding=lambda count: math.floor(count + _HAIR),
    )
    (may_stay,) = keep_best(
        [entry.ranks],
        [entry.sizes],
        size - prunable * low,
        rounding=lambda count: math.ceil(count - _HAIR),
    )
    entry.fix(stay, np.inf)
    entry.fix(~may_stay, -np.inf)
    return int(np.count_nonzero(stay))

"""Exact selection of the highest-ranked units over several arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

# Large enough for a narrow bracket around a threshold, small enough to be sorted in no time.
_SAMPLE_SIZE = 1 << 16


def keep_best(
    ranks: Sequence[np.ndarray],
    sizes: Sequence[int | np.ndarray],
    kept: float,
    *,
    at_least: int = 1,
    rounding: Callable[[float], int] = round,
) -> list[np.ndarray]:
    """Keep the highest-ranked units that hold `kept` weights together.

    Args:
        ranks: float arrays of unit ranks; units at -inf are never kept.
        sizes: for each array, the number of weights in its units.
        kept: number of weights to keep.
        at_least: number of units to keep whatever `kept` says.
        rounding: what makes a whole number of the units that `kept` weights come to.

    Returns:
        Boolean arrays, one for each array of ranks.
    """
    if all(isinstance(size, int) and size == sizes[0] for size in sizes):
        return _keep_best_equal(ranks, max(rounding(kept / sizes[0]), at_least))
    pool = np.concatenate(ranks)
    pool_sizes = np.concatenate(
        [np.broadcast_to(size, rank.shape) for size, rank in zip(sizes, ranks, strict=True)]
    )
    order = np.argsort(-pool, kind="stable")
    reached = np.concatenate([[0], np.cumsum(pool_sizes[order])])
    count = max(rounding(np.interp(kept, reached, np.arange(reached.size))), at_least)
    mask = np.zeros(pool.shape, bool)
    mask[order[:count]] = True
    mask &= pool > -np.inf
    return np.split(mask, np.cumsum([rank.size for rank in ranks])[:-1])


def _keep_best_equal(ranks: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Keep the `count` highest-ranked units over all arrays, -inf never."""
    if count >= sum(rank.size for rank in ranks):
        return [rank > -np.inf for rank in ranks]
    threshold = _kth_largest(ranks, count)
    masks = [rank > threshold for rank in ranks]
    ties = count - sum(int(np.count_nonzero(mask)) for mask in masks)
    for rank, mask in zip(ranks, masks, strict=True):
        if ties and threshold > -np.inf:
            tied = np.flatnonzero(rank == threshold)[:ties]
            mask[tied] = True
            ties -= tied.size
    return masks


def _kth_largest(arrays: Sequence[np.ndarray], k: int) -> float:
    """Return the k-th largest value over all arrays, exactly.

    A sample tells between which two values it must lie, so that one pass and a small partition do
    what a partition of a copy of everything would (the idea of Floyd & Rivest, 1975, "SELECT").
    """
    total = sum(array.size for array in arrays)
    step = max(total // _SAMPLE_SIZE, 1)
    sample = np.sort(np.concatenate([array[::step] for array in arrays]))
    position = round((1 - k / total) * sample.size)
    margin = 4 * math.isqrt(sample.size)
    low = sample[max(position - margin, 0)]
    high = sample[min(position + margin, sample.size - 1)]
    above = sum(int(np.count_nonzero(array > high)) for array in arrays)
    # Without the pruned ones at -inf: a partition of so many equals would crawl.
    between = np.concatenate([a[(a >= low) & (a <= high) & (a > -np.inf)] for a in arrays])
    if low == -np.inf and k > above + between.size:
        return low
    if not above < k <= above + between.size:
        above, between = 0, np.concatenate(arrays)  # The sample missed: take everything.
    index = between.size - (k - above)
    between.partition(index)
    return between[index]

"""Scores, pattern and sparsity become boolean masks, with exact counts. numpy only.

Of `size` weights, k = max(round-half-even(size * (1 - sparsity)), 1) are kept, computed in float64:
the k with the highest scores, and among equal scores those with the lower index. A local mask is
cut within one weight, global masks by one threshold over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tfprune.errors import InvalidArgumentError
from tfprune.kernel_layout import KernelLayout
from tfprune.patterns import Pattern, Unstructured

# Large enough for a narrow bracket around a threshold, small enough to be sorted in no time.
_SAMPLE_SIZE = 1 << 16


@dataclass(frozen=True, eq=False)
class ScoredWeight:
    """What is known of one weight when its mask is computed.

    Args:
        scores: float array of the weight's shape; high means keep.
        layout: roles of the axes; Keras's usual order if `None`.
        alive: boolean array of the same shape, false for weights that stay pruned; `None` if every
            weight may be kept (criteria that score pruned weights can let them grow back).
        path: name for error messages.
    """

    scores: np.ndarray
    layout: KernelLayout | None = None
    alive: np.ndarray | None = None
    path: str = "the weight"


def kept_count(size: int, sparsity: float) -> int:
    """Return how many of `size` weights are kept at `sparsity`.

    Example:
        >>> [kept_count(10, s) for s in (0.0, 0.25, 0.5, 0.99)]
        [10, 8, 5, 1]
    """
    return max(round(size * (1.0 - float(sparsity))), 1)


def kept_weights(layout: KernelLayout, sparsity: float, pattern: Pattern) -> int:
    """Return how many weights of one layout a pattern keeps at `sparsity`.

    Weights that the pattern cannot prune (an incomplete N:M group) are all kept, and do not count
    towards the sparsity. Exact where all units are of one size, else to one unit.
    """
    return _kept([layout], sparsity, pattern)


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
    weight = ScoredWeight(scores, layout, alive, path)
    return _cut([weight], sparsity, pattern or Unstructured())[0]


def global_masks(
    weights: Iterable[ScoredWeight], sparsity: float, pattern: Pattern | None = None
) -> list[np.ndarray]:
    """Compute masks by one threshold over all weights; every weight keeps its best unit.

    Args:
        weights: the scored weights; consumed one by one, so a generator saves memory.
        sparsity: fraction of zeros in [0, 1), over all weights together.
        pattern: which weights go together; `Unstructured()` by default.

    Returns:
        Boolean arrays, one per weight, in order.

    Raises:
        InvalidArgumentError: if a score is NaN or infinite.

    Example:
        >>> first, second = ScoredWeight(np.array([9.0, 8, 7])), ScoredWeight(np.array([1.0]))
        >>> [mask.tolist() for mask in global_masks([first, second], 0.5)]
        [[True, False, False], [True]]
    """
    return _cut(weights, sparsity, pattern or Unstructured(), protect_best=True)


def _cut(
    weights: Iterable[ScoredWeight], sparsity: float, pattern: Pattern, protect_best: bool = False
) -> list[np.ndarray]:
    ranks, sizes, layouts = [], [], []
    for weight in weights:
        _check_finite(weight)
        layout = weight.layout or KernelLayout.default(weight.scores.shape)
        rank = pattern.rank(weight.scores, weight.alive, layout)
        ranks.append(_with_best_protected(rank, weight.scores) if protect_best else rank)
        sizes.append(pattern.unit_sizes(layout))
        layouts.append(layout)
    kept = _kept(layouts, sparsity, pattern)
    at_least = len(ranks) if protect_best else 1
    if all(isinstance(size, int) and size == sizes[0] for size in sizes):
        unit_masks = _keep_best(ranks, max(round(kept / sizes[0]), at_least))
    else:
        unit_masks = _keep_best_of_unequal(ranks, sizes, kept, at_least)
    return [pattern.expand(mask, layout) for mask, layout in zip(unit_masks, layouts, strict=True)]


def _kept(layouts: list[KernelLayout], sparsity: float, pattern: Pattern) -> int:
    prunable = sum(pattern.prunable_size(layout) for layout in layouts)
    untouchable = sum(layout.size for layout in layouts) - prunable
    return untouchable + (kept_count(prunable, sparsity) if prunable else 0)


def _check_finite(weight: ScoredWeight) -> None:
    scores = weight.scores
    # min and max carry NaN and need no temporary array.
    if scores.size and not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
        bad = int(np.count_nonzero(~np.isfinite(scores)))
        raise InvalidArgumentError(
            f"{weight.path} has {bad} scores that are NaN or infinite, of {scores.size}. "
            "Check the weights and the loss (a diverged training gives NaN); nothing was pruned."
        )


def _with_best_protected(rank: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the ranks with the best at +inf: a layer without weights would cut the network."""
    best = rank.argmax()
    if rank[best] > -np.inf:
        rank = rank.copy() if np.may_share_memory(rank, scores) else rank
        rank[best] = np.inf
    return rank


def _keep_best(ranks: list[np.ndarray], count: int) -> list[np.ndarray]:
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


def _kth_largest(arrays: list[np.ndarray], k: int) -> float:
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


def _keep_best_of_unequal(
    ranks: list[np.ndarray], sizes: list[int | np.ndarray], kept: int, at_least: int
) -> list[np.ndarray]:
    """Keep the highest-ranked units whose sizes add up closest to `kept` weights."""
    pool = np.concatenate(ranks)
    pool_sizes = np.concatenate(
        [np.broadcast_to(size, rank.shape) for size, rank in zip(sizes, ranks, strict=True)]
    )
    order = np.argsort(-pool, kind="stable")
    reached = np.cumsum(pool_sizes[order])
    count = max(1 + int(np.abs(reached - kept).argmin()), at_least)
    mask = np.zeros(pool.shape, bool)
    mask[order[:count]] = True
    mask &= pool > -np.inf
    return np.split(mask, np.cumsum([rank.size for rank in ranks])[:-1])

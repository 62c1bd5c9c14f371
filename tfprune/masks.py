"""Scores, pattern and sparsity become boolean masks, with exact counts. numpy only.

Of `size` weights, k = max(round-half-even(size * (1 - sparsity)), 1) are kept, computed in float64:
the k with the highest scores, and among equal scores those with the lower index. A local mask is
cut within one weight, global masks by one threshold over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tfprune.errors import InvalidArgumentError
from tfprune.kernel_layout import KernelLayout
from tfprune.patterns import Pattern, Unstructured


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
        ranks.append(rank)
        sizes.append(pattern.unit_sizes(layout))
        layouts.append(layout)
    kept = _kept(layouts, sparsity, pattern)
    # A layer without a single weight would cut the network in two.
    protected = [rank.argmax() for rank in ranks] if protect_best else [None] * len(ranks)
    if all(isinstance(size, int) and size == sizes[0] for size in sizes):
        unit_masks = _keep_best(ranks, max(round(kept / sizes[0]), 1), protected)
    else:
        unit_masks = _keep_best_of_unequal(ranks, sizes, kept, protected)
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


def _keep_best(
    ranks: list[np.ndarray], count: int, protected: list[int | None]
) -> list[np.ndarray]:
    """Keep the `count` highest-ranked units over all arrays, -inf never."""
    total = sum(rank.size for rank in ranks)
    if count >= total:
        return [rank > -np.inf for rank in ranks]
    # One copy, partitioned in place: at 25 M weights the copy is the memory peak.
    pool = _pool(ranks, protected)
    pool.partition(total - count)
    threshold = pool[total - count]
    del pool
    if threshold == -np.inf:
        return [rank > -np.inf for rank in ranks]
    masks = [rank > threshold for rank in ranks]
    for rank, mask, best in zip(ranks, masks, protected, strict=True):
        if best is not None and rank[best] > -np.inf:
            mask[best] = True
    ties = count - sum(int(np.count_nonzero(mask)) for mask in masks)
    for rank, mask in zip(ranks, masks, strict=True):
        if ties > 0:
            tied = np.flatnonzero((rank == threshold) & ~mask)[:ties]
            mask[tied] = True
            ties -= tied.size
    return masks


def _keep_best_of_unequal(
    ranks: list[np.ndarray],
    sizes: list[int | np.ndarray],
    kept: int,
    protected: list[int | None],
) -> list[np.ndarray]:
    """Keep the highest-ranked units whose sizes add up closest to `kept` weights."""
    pool = _pool(ranks, protected)
    pool_sizes = np.concatenate(
        [np.broadcast_to(size, rank.shape) for size, rank in zip(sizes, ranks, strict=True)]
    )
    order = np.argsort(-pool, kind="stable")
    reached = np.cumsum(pool_sizes[order])
    count = 1 + int(np.abs(reached - kept).argmin())
    mask = np.zeros(pool.shape, bool)
    mask[order[:count]] = True
    mask &= pool > -np.inf
    return np.split(mask, np.cumsum([rank.size for rank in ranks])[:-1])


def _pool(ranks: list[np.ndarray], protected: list[int | None]) -> np.ndarray:
    """Return all ranks in one new array, the protected units (one per array) at +inf."""
    pool = np.concatenate(ranks)
    start = 0
    for rank, best in zip(ranks, protected, strict=True):
        if best is not None and rank[best] > -np.inf:
            pool[start + best] = np.inf
        start += rank.size
    return pool

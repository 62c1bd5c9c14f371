"""Masks by a threshold: the sparsity is what comes of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from tfprune.errors import InvalidArgumentError
from tfprune.masks.units import RankedUnits, ScoredWeight, expand_units, rank_units
from tfprune.patterns import Pattern, Unstructured

_SCOPES = ("layer", "global")


def threshold_masks(
    weights: Iterable[ScoredWeight],
    threshold: float,
    pattern: Pattern | None = None,
    relative_to: str | None = None,
    scope: str = "layer",
) -> list[np.ndarray]:
    """Keep the units that score at least a threshold, and the best of every weight.

    N:M patterns keep the best n of every group too, so no group has more than m - n zeros.

    Args:
        weights: the scored weights; consumed one by one, so a generator saves memory.
        threshold: lowest unit score that is kept.
        pattern: which weights go together; `Unstructured()` by default.
        relative_to: `None`, or the statistic of the unit scores that `threshold` is a multiple of:
            `"mean"`, `"max"` or `"std"`. Pruned weights count with a score of zero; otherwise each
            update would raise the mean, and with it the threshold, over what the last one left.
        scope: `"layer"` takes that statistic over each weight, `"global"` over all of them.

    Returns:
        Boolean arrays, one per weight, in order.

    Raises:
        InvalidArgumentError: if a score is NaN or infinite, or an argument has another value.

    Example:
        >>> scores = np.array([0.5, 1.0, 2.0, 4.5])
        >>> threshold_masks([ScoredWeight(scores)], 1.0)[0].tolist()
        [False, True, True, True]
        >>> threshold_masks([ScoredWeight(scores)], 1.0, relative_to="mean")[0].tolist()
        [False, False, True, True]
    """
    if relative_to not in (None, *_STATISTICS):
        raise InvalidArgumentError(
            f"`relative_to` is None or one of {list(_STATISTICS)}. Received: {relative_to!r}"
        )
    if scope not in _SCOPES:
        raise InvalidArgumentError(f"`scope` is one of {_SCOPES}. Received: {scope!r}")
    if not math.isfinite(threshold):
        raise InvalidArgumentError(f"`threshold` must be finite. Received: {threshold!r}")
    pattern = pattern or Unstructured()
    units = rank_units(weights, pattern, with_scores=relative_to is not None)
    scales = [1.0] * len(units)
    if relative_to is not None:
        statistic, scores = _STATISTICS[relative_to], [entry.scores for entry in units]
        scales = [statistic([layer]) for layer in scores]
        if scope == "global":
            scales = [statistic(scores)] * len(units)
    return expand_units(
        units, [_cut(u, threshold * s) for u, s in zip(units, scales, strict=True)], pattern
    )


def _cut(units: RankedUnits, threshold: float) -> np.ndarray:
    mask = units.ranks >= threshold
    best = units.ranks.argmax()
    mask[best] = units.ranks[best] > -np.inf
    return mask


def _mean(arrays: Sequence[np.ndarray]) -> float:
    total = sum(float(array.sum(dtype=np.float64)) for array in arrays)
    return total / sum(array.size for array in arrays)


def _std(arrays: Sequence[np.ndarray]) -> float:
    mean = _mean(arrays)
    return math.sqrt(_mean([np.square(array - mean) for array in arrays]))


def _max(arrays: Sequence[np.ndarray]) -> float:
    return max(float(array.max()) for array in arrays)


_STATISTICS = {"mean": _mean, "max": _max, "std": _std}

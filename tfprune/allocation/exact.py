"""Sharing a number of kept weights between layers, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_HALVINGS = 64


def exact_sparsities(
    kept: int, sizes: Sequence[int], proportions: Sequence[float], least: Sequence[int]
) -> list[float]:
    """Share `kept` weights between layers, in given proportions but within their limits.

        kept_l = min(max(factor * proportion_l, least_l), size_l), rounded

    with the factor that makes them add up. Rounding is Webster's (the divisor method of
    Sainte-Lague): as `kept` falls, no layer ever gets a weight back, which largest remainders do
    not promise.

    Args:
        kept: number of weights to keep; at least the sum of `least`.
        sizes: number of weights in each layer.
        proportions: what each layer would keep, up to a common factor.
        least: number of weights that each layer keeps at least.

    Returns:
        One sparsity for each layer, from which `kept_count` computes just its share.

    Example:
        >>> exact_sparsities(6, [8, 4], [1.0, 1.0], [1, 1])
        [0.625, 0.25]
    """
    high, low = np.asarray(sizes, np.int64), np.asarray(least, np.int64)
    shares = np.asarray(proportions, np.float64)
    below, above = 0.0, float((high / shares).max())
    for _ in range(_HALVINGS):
        factor = (below + above) / 2
        enough = np.clip(factor * shares, low, high).sum() >= kept
        below, above = (below, factor) if enough else (factor, above)
    counts = np.clip(np.rint(above * shares), low, high).astype(np.int64)
    while missing := kept - int(counts.sum()):
        # The k-th weight of a layer comes at the factor (k - 1/2) / share.
        if missing > 0:
            counts[np.where(counts < high, (counts + 0.5) / shares, np.inf).argmin()] += 1
        else:
            counts[np.where(counts > low, (counts - 0.5) / shares, -np.inf).argmax()] -= 1
    return (1 - counts / high).tolist()

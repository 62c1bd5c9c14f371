"""Attention heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.kernel_layout import KernelLayout
from tfprune.patterns.base import Pattern


@dataclass(frozen=True)
class Head(Pattern):
    """Whole attention heads: one decision for the query, key, value and output kernels of a layer.

    With grouped queries, a key/value head goes together with its query heads. Weights without heads
    stay dense.

    Source: Michel, Levy & Neubig (2019), "Are Sixteen Heads Really Better than One?".

    Example:
        >>> query = KernelLayout((1, 2, 3), (0,), (1, 2), heads=(1, 2))
        >>> Head().unit_scores(np.array([[[1.0, 2, 3], [4, 5, 6]]]), query).tolist()
        [2.0, 5.0]
    """

    couples: ClassVar[bool] = True

    def unit_scores(self, scores: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the mean score of each head."""
        axis, units = layout.heads or (0, 1)
        others = tuple(other for other in range(scores.ndim) if other != axis)
        return scores.mean(axis=others).reshape(units, -1).mean(axis=1)

    def unit_sizes(self, layout: KernelLayout) -> int | np.ndarray:
        """Return the number of weights of one head in this kernel."""
        return layout.size // (layout.heads[1] if layout.heads else 1)

    def prunable_size(self, layout: KernelLayout) -> int:
        """Return the weight's size, or 0 if it has less than two heads."""
        return layout.size if layout.heads and layout.heads[1] > 1 else 0

    def expand(self, unit_mask: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the mask in the weight's shape."""
        axis, units = layout.heads or (0, 1)
        heads = unit_mask.repeat(layout.shape[axis] // units)
        shape = [1] * len(layout.shape)
        shape[axis] = heads.size
        return np.broadcast_to(heads.reshape(shape), layout.shape).copy()

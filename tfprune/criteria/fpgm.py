"""FPGM: filters near the geometric median of their layer can be replaced by the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.criteria.base import Criterion, WeightView

# So many rows of the weight at a time in float64, and not a copy of it all.
_ROWS = 4096


@dataclass(frozen=True)
class Fpgm(Criterion):
    """Score the sum of a filter's distances to all other filters of its layer.

    Pruned filters, all at the origin, are not counted. Takes memory for outputs x outputs float64
    numbers.

    Source: He et al. (2019), "Filter Pruning via Geometric Median for Deep Convolutional Neural
    Networks Acceleration".

    Example:
        >>> Fpgm().score(WeightView(np.array([[0.0, 1.0, 3.0]]))).tolist()
        [[4.0, 3.0, 5.0]]
    """

    scores_outputs: ClassVar[bool] = True

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the sums of distances, the same for all weights of a filter."""
        layout = weight.roles
        outputs = layout.taps_shape[2]
        filters = layout.to_taps(weight.values).reshape(-1, outputs)
        # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, in float64: the difference of large numbers.
        distances = np.zeros((outputs, outputs))
        for start in range(0, len(filters), _ROWS):
            rows = filters[start : start + _ROWS].astype(np.float64)
            distances += rows.T @ rows
        squares = distances.diagonal().copy()
        distances *= -2
        distances += squares
        distances += squares[:, None]
        np.sqrt(np.maximum(distances, 0, out=distances), out=distances)
        if weight.alive is not None:
            alive = layout.to_taps(weight.alive).reshape(-1, outputs).any(axis=0)
            distances = distances[:, alive]
        sums = distances.sum(axis=1).astype(weight.values.dtype)
        return layout.from_taps(np.broadcast_to(sums, layout.taps_shape).copy())

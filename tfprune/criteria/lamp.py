"""LAMP: magnitudes that can be compared between layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.allocation import lamp_scores
from tfprune.criteria.base import Criterion, WeightView


@dataclass(frozen=True)
class Lamp(Criterion):
    """Score w^2 relative to the weights of the layer that are at least as large.

    Meant for `allocation="global"`: one threshold then gives each layer its own sparsity. Within a
    layer it is the order of the magnitudes.

    Source: Lee et al. (2021), "Layer-adaptive Sparsity for the Magnitude-based Pruning".

    Example:
        >>> Lamp().score(WeightView(np.array([-3.0, 0.0, 4.0]))).tolist()
        [0.36, 0.0, 1.0]
    """

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the LAMP scores of the magnitudes; pruned weights, being zero, score 0."""
        return lamp_scores(np.abs(weight.values))

"""Magnitude: small weights matter least (Han et al., 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.criteria.base import Criterion, WeightView


@dataclass(frozen=True)
class Magnitude(Criterion):
    """Score |w|, as in Han et al. (2015), "Learning both Weights and Connections".

    Example:
        >>> Magnitude().score(WeightView(np.array([-3.0, 0.5]))).tolist()
        [3.0, 0.5]
    """

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the absolute values."""
        return np.abs(weight.values)

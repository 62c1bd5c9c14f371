"""Magnitude: small weights matter least (Han et al., 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.criteria.base import Criterion, WeightView


@dataclass(frozen=True)
class Magnitude(Criterion):
    """Score |w|; a group of weights has the mean, so groups rank by their L1 norm.

    Source: Han et al. (2015), "Learning both Weights and Connections for Efficient Neural
    Networks".

    Example:
        >>> Magnitude().score(WeightView(np.array([-3.0, 0.5]))).tolist()
        [3.0, 0.5]
    """

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the absolute values."""
        return np.abs(weight.values)


@dataclass(frozen=True)
class L2(Criterion):
    """Score w**2, so that groups of one size - blocks, kernels, filters - rank by their L2 norm.

    Source: Li et al. (2017), "Pruning Filters for Efficient ConvNets", compares both norms.

    Example:
        >>> L2().score(WeightView(np.array([-3.0, 0.5]))).tolist()
        [9.0, 0.25]
    """

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the squares."""
        return np.square(weight.values)

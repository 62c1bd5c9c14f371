"""Criteria that look at what a unit puts out: weak or silent units matter least.

All weights of a unit get the same score, so they go with patterns of whole outputs. The activation
is the value after the nonlinearity, also where that is a layer of its own (see
`tfprune.evidence.activations`); the statistics are taken over examples and positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.criteria.base import Criterion, WeightView


def spread_outputs(weight: WeightView, values: np.ndarray) -> np.ndarray:
    """Return one value per output as an array of the weight's shape and dtype."""
    return np.full(weight.values.shape, values, weight.values.dtype)


@dataclass(frozen=True)
class ActivationMean(Criterion):
    """Score the mean absolute activation, as in Molchanov et al. (2017).

    Source: "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017.

    Example:
        >>> evidence = {"activation_mean": np.array([[0.5, 2.0]])}
        >>> ActivationMean().score(WeightView(np.ones((3, 2)), evidence=evidence))[0].tolist()
        [0.5, 2.0]
    """

    scores_outputs: ClassVar[bool] = True
    evidence: ClassVar[tuple[str, ...]] = ("activation_mean",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the mean of |a|, the same for all weights of a unit."""
        return spread_outputs(weight, weight.evidence["activation_mean"])


@dataclass(frozen=True)
class ActivationMax(Criterion):
    """Score the largest absolute activation: a unit that never rises far matters least."""

    scores_outputs: ClassVar[bool] = True
    evidence: ClassVar[tuple[str, ...]] = ("activation_max",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the maximum of |a|, the same for all weights of a unit."""
        return spread_outputs(weight, weight.evidence["activation_max"])


@dataclass(frozen=True)
class ActivationMin(Criterion):
    """Score the smallest absolute activation: a unit that is silent at times matters least.

    After ReLU nearly every unit is silent somewhere, so that most scores are 0: this is for units
    that are always on, such as those of a sigmoid.
    """

    scores_outputs: ClassVar[bool] = True
    evidence: ClassVar[tuple[str, ...]] = ("activation_min",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the minimum of |a|, the same for all weights of a unit."""
        return spread_outputs(weight, weight.evidence["activation_min"])


@dataclass(frozen=True)
class ActivationVariance(Criterion):
    """Score the variance of the activation: a constant unit can be made part of the next bias.

    Source: Polyak and Wolf (2015), "Channel-Level Acceleration of Deep Face Representations".
    """

    scores_outputs: ClassVar[bool] = True
    evidence: ClassVar[tuple[str, ...]] = ("activation_variance",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the variance of a, the same for all weights of a unit."""
        return spread_outputs(weight, weight.evidence["activation_variance"])


@dataclass(frozen=True)
class Apoz(Criterion):
    """Score 1 - APoZ, the fraction of activations that are not zero.

    For ReLU and its like: other activations are hardly ever exactly zero, and all score 1.

    Source: Hu et al. (2016), "Network Trimming: A Data-Driven Neuron Pruning Approach towards
    Efficient Deep Architectures" (APoZ: average percentage of zeros).

    Example:
        >>> evidence = {"activation_zeros": np.array([[1.0, 0.25]])}
        >>> Apoz().score(WeightView(np.ones((3, 2)), evidence=evidence))[0].tolist()
        [0.0, 0.75]
    """

    scores_outputs: ClassVar[bool] = True
    evidence: ClassVar[tuple[str, ...]] = ("activation_zeros",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return 1 - APoZ, the same for all weights of a unit."""
        return spread_outputs(weight, 1 - weight.evidence["activation_zeros"])

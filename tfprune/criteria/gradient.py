"""First-order criteria: what the loss's gradient g says about a weight w.

The gradient is gathered from `data=` by `tfprune.evidence`; patterns that prune weights together
pool the scores by their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.criteria.base import Criterion, WeightView


@dataclass(frozen=True)
class GradientMagnitude(Criterion):
    """Score |g|: weights that the loss hardly depends on, for now, matter least.

    Pruned weights have a gradient too, so they may grow back.

    Example:
        >>> gradient = np.array([-0.5, 0.25])
        >>> weight = WeightView(np.array([0.0, 2.0]), evidence={"gradient": gradient})
        >>> GradientMagnitude().score(weight).tolist()
        [0.5, 0.25]
    """

    scores_pruned: ClassVar[bool] = True
    evidence: ClassVar[tuple[str, ...]] = ("gradient",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the absolute gradient."""
        return np.abs(weight.evidence["gradient"])


@dataclass(frozen=True)
class Snip(Criterion):
    """Score |g w|, the sensitivity of the loss to a connection, made for untrained networks.

    The paper divides by the sum over the network, which changes no order and is left out.

    Source: Lee et al. (2019), "SNIP: Single-shot Network Pruning based on Connection Sensitivity".

    Example:
        >>> gradient = np.array([-0.5, 0.25])
        >>> weight = WeightView(np.array([0.0, 2.0]), evidence={"gradient": gradient})
        >>> Snip().score(weight).tolist()
        [0.0, 0.5]
    """

    evidence: ClassVar[tuple[str, ...]] = ("gradient",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return |g w|."""
        return np.abs(weight.evidence["gradient"] * weight.values)


@dataclass(frozen=True)
class Taylor(Criterion):
    """Score the mean over the batches of (g w)^2, the squared first-order change of the loss.

    Squared in each batch and averaged then, as in the paper: near a minimum the mean gradient
    vanishes, and its square with it. Of the paper's two forms for a group of weights this is the
    sum of squares, sum (g w)^2 - its mean, where units of several weights are pooled -, not the
    square of the sum: that is no mean of scores of single weights.

    Source: Molchanov et al. (2019), "Importance Estimation for Neural Network Pruning".

    Example:
        >>> evidence = {"squared_batch_gradient": np.array([0.25, 0.0625])}
        >>> Taylor().score(WeightView(np.array([1.0, -4.0]), evidence=evidence)).tolist()
        [0.25, 1.0]
    """

    evidence: ClassVar[tuple[str, ...]] = ("squared_batch_gradient",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the mean of (g w)^2."""
        return np.square(weight.values) * weight.evidence["squared_batch_gradient"]

"""Normalization scale: channels that the next batch normalization all but mutes matter least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.criteria.activation import spread_outputs
from tfprune.criteria.base import Criterion, WeightView


@dataclass(frozen=True)
class NormScale(Criterion):
    """Score |gamma| of the normalization layer that follows, the same for all weights of a channel.

    Meant for models that were trained with an L1 penalty on gamma, which drives those of needless
    channels to zero.

    Source: Liu et al. (2017), "Learning Efficient Convolutional Networks through Network Slimming".

    Example:
        >>> evidence = {"norm_scale": np.array([[0.5, 2.0]])}
        >>> NormScale().score(WeightView(np.ones((3, 2)), evidence=evidence))[0].tolist()
        [0.5, 2.0]
    """

    scores_outputs: ClassVar[bool] = True
    evidence: ClassVar[tuple[str, ...]] = ("norm_scale",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return |gamma| of each weight's channel."""
        return spread_outputs(weight, weight.evidence["norm_scale"])

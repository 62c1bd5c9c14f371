"""The interface of every criterion."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.configurable import Configurable


@dataclass(frozen=True, eq=False)
class WeightView:
    """What a criterion sees of one weight.

    Args:
        values: float array of the weight; read-only.
        path: the weight's path in the model, such as `"conv1/kernel"`.
        step: training step of the update, 0 outside of training.
    """

    values: np.ndarray
    path: str = ""
    step: int = 0


class Criterion(Configurable):
    """Base class: subclass it as a frozen dataclass, and define `score`.

    Attributes:
        scores_pruned: whether the scores of pruned weights mean something, so that such weights
            may grow back. False keeps every pruned weight pruned.
    """

    scores_pruned: ClassVar[bool] = False

    @abc.abstractmethod
    def score(self, weight: WeightView) -> np.ndarray:
        """Return a new float array of the weight's shape; the higher, the more it matters."""

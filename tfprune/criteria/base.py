"""The interface of every criterion."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tfprune.configurable import Configurable
from tfprune.kernel_layout import KernelLayout


@dataclass(frozen=True, eq=False)
class WeightView:
    """What a criterion sees of one weight.

    Args:
        values: float array of the weight; read-only.
        path: the weight's path in the model, such as `"conv1/kernel"`.
        step: training step of the update, 0 outside of training.
        layout: roles of the weight's axes; Keras's usual order if `None`.
        alive: boolean array of the weight's shape, false where it is pruned; `None` if nowhere.
        progress: how far the schedule is, in [0, 1]; 0 if it has no end.
        evidence: float arrays by name, as the criterion's `evidence` asks; each is of the weight's
            shape or can be broadcast to it.
    """

    values: np.ndarray
    path: str = ""
    step: int = 0
    layout: KernelLayout | None = None
    alive: np.ndarray | None = None
    progress: float = 0.0
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def roles(self) -> KernelLayout:
        """The layout, or Keras's usual order where none is given."""
        return self.layout or KernelLayout.default(self.values.shape)


class Criterion(Configurable):
    """Base class: subclass it as a frozen dataclass, and define `score`.

    Attributes:
        scores_pruned: whether the scores of pruned weights mean something, so that such weights
            may grow back. False keeps every pruned weight pruned.
        scores_outputs: whether all weights of one output (a filter, a unit) get the same score, so
            that only a pattern of whole outputs makes sense.
        within_weight: whether scores of different weights cannot be compared, so that one threshold
            over all layers makes no sense.
        evidence: what has to be gathered from the model before scoring; names from
            `tfprune.evidence`.
        accumulates: whether `increment` is summed over the training steps, inside of the compiled
            step; the sum is the evidence named "accumulated".
        restarts: whether that sum begins anew after each mask update.
    """

    scores_pruned: ClassVar[bool] = False
    scores_outputs: ClassVar[bool] = False
    within_weight: ClassVar[bool] = False
    evidence: ClassVar[tuple[str, ...]] = ()
    accumulates: ClassVar[bool] = False
    restarts: ClassVar[bool] = False

    @abc.abstractmethod
    def score(self, weight: WeightView) -> np.ndarray:
        """Return a new float array of the weight's shape; the higher, the more it matters."""

    def increment(self, values: Any, gradient: Any) -> Any:
        """Return what one training step adds to the sum, if the criterion accumulates.

        Args:
            values: the weight's tensor before the step.
            gradient: the loss's gradient, a tensor of the same shape.
        """
        raise NotImplementedError(f"{type(self).__name__} accumulates nothing.")

"""The interface of every allocation."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfprune.configurable import Configurable
from tfprune.kernel_layout import KernelLayout


@dataclass(frozen=True)
class WeightInfo:
    """What an allocation may know of a weight.

    Args:
        path: the weight's path, such as `"block/conv/kernel"`.
        layout: its shape, and the roles of its axes.
        layers: names of the layers that contain it, outermost first.
    """

    path: str
    layout: KernelLayout
    layers: tuple[str, ...] = ()


class Allocation(Configurable):
    """Base class of the allocations.

    Attributes:
        one_threshold: whether one threshold over all weights decides (global scope), in which case
            `sparsities` is only what is asked of the whole.
    """

    one_threshold: ClassVar[bool] = False

    @abc.abstractmethod
    def sparsities(
        self, sparsity: float, weights: Sequence[WeightInfo], final_sparsity: float
    ) -> list[float]:
        """Return the sparsity of each weight.

        Args:
            sparsity: the target over all now, in [0, 1).
            weights: what is pruned, in model order.
            final_sparsity: the target at the schedule's end.

        Raises:
            InvalidArgumentError: if the weights cannot have it.
        """

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and highest final sparsity of a weight, where one threshold decides."""
        return 0.0, 1.0

    def rescale(self, scores: np.ndarray, alive: np.ndarray | None) -> np.ndarray:
        """Return the scores of one weight as the common threshold should see them.

        Args:
            scores: float array of the weight's shape; left as it is.
            alive: boolean array of the same shape, false for weights that stay pruned; `None` if
                every weight may be kept.
        """
        return scores

    def resolved(self, weights: Sequence[WeightInfo]) -> Allocation:
        """Return an allocation that can be saved, for these weights."""
        return self

    @classmethod
    def get(cls, identifier: Any) -> Any:
        """Turn a name, a dict by layer, a callable or an allocation into an allocation.

        Example:
            >>> Allocation.get("erk")
            Erk(kernel=True)
            >>> Allocation.get({"conv1": 0.05})
            PerLayer(layers=(('conv1', 0.05),), default=None)
        """
        if isinstance(identifier, dict) and "class_name" not in identifier:
            return cls._class_named("PerLayer")(identifier)
        if callable(identifier) and not isinstance(identifier, type):
            return cls._class_named("PerWeight")(identifier)
        return super().get(identifier)


def progress(sparsity: float, final_sparsity: float) -> float:
    """Return how far a schedule has come, in [0, 1].

    Example:
        >>> progress(0.2, 0.8), progress(0.8, 0.8), progress(0.0, 0.0)
        (0.25, 1.0, 1.0)
    """
    return min(sparsity / final_sparsity, 1.0) if final_sparsity else 1.0

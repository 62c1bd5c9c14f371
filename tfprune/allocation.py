"""Allocation: how a target sparsity is shared between the weights of a model.

To add one, subclass `Allocation` and define `sparsities`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tfprune.configurable import Configurable
from tfprune.kernel_layout import KernelLayout


class Allocation(Configurable):
    """Base class of the allocations.

    Attributes:
        one_threshold: whether one threshold over all weights decides (global scope), in which case
            `sparsities` is only what is asked of the whole.
    """

    one_threshold: ClassVar[bool] = False

    @abc.abstractmethod
    def sparsities(self, sparsity: float, layouts: Sequence[KernelLayout]) -> list[float]:
        """Return the sparsity of each weight.

        Args:
            sparsity: the target over all, in [0, 1).
            layouts: the weights' layouts.
        """


@dataclass(frozen=True)
class Uniform(Allocation):
    """The same sparsity in every weight."""

    def sparsities(self, sparsity: float, layouts: Sequence[KernelLayout]) -> list[float]:
        """Return `sparsity` for each weight."""
        return [sparsity] * len(layouts)


@dataclass(frozen=True)
class Global(Allocation):
    """One threshold over all weights: each layer gets the sparsity that its scores deserve."""

    one_threshold: ClassVar[bool] = True

    def sparsities(self, sparsity: float, layouts: Sequence[KernelLayout]) -> list[float]:
        """Return `sparsity` for each weight: what they have on average."""
        return [sparsity] * len(layouts)

"""The interface of every pattern."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfprune.configurable import Configurable
from tfprune.errors import InvalidArgumentError
from tfprune.kernel_layout import KernelLayout

if TYPE_CHECKING:
    from tfprune.prunable import Candidate
    from tfprune.sparse_part import SparsePart


class Pattern(Configurable):
    """Base class of the patterns.

    Attributes:
        whole_outputs: whether a unit is all that makes one output, so that criteria which score
            outputs make sense.
        couples: whether weights of one group (`ScoredWeight.group`) share their units: one decision
            for all of them.
        whole_model: whether it depends on the model which weights are taken (see `survey`).
    """

    whole_outputs: ClassVar[bool] = False
    couples: ClassVar[bool] = False
    whole_model: ClassVar[bool] = False

    @abc.abstractmethod
    def unit_scores(self, scores: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return one score per unit.

        Args:
            scores: float array of the weight's shape; high means keep.
            layout: roles of the axes.

        Returns:
            Float array `(units,)`: the mean score over each unit.
        """

    @abc.abstractmethod
    def expand(self, unit_mask: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the boolean mask of the weight's shape for a boolean array `(units,)`."""

    def unit_sizes(self, layout: KernelLayout) -> int | np.ndarray:
        """Return the number of weights in each unit: one int where all are equal."""
        return 1

    def prunable_size(self, layout: KernelLayout) -> int:
        """Return how many of the weights the pattern can prune at all.

        None if they are a single unit, because one unit always stays.
        """
        sizes = self.unit_sizes(layout)
        single = isinstance(sizes, int) and sizes == layout.size > 1
        return 0 if single else layout.size

    def survey(self, model: Any, candidates: Sequence[Candidate]) -> dict[int, SparsePart | str]:
        """Look at the model around the weights, and return what that means for each by its `id`.

        Args:
            model: the Keras model.
            candidates: its weights.

        Returns:
            The part of the model in which a weight makes a runtime faster, or in words why it makes
            none. A weight that is missing may be pruned like any other.
        """
        return {}

    def rank(
        self, scores: np.ndarray, alive: np.ndarray | None, layout: KernelLayout
    ) -> np.ndarray:
        """Return the unit scores with -inf for units that must go and +inf for those that stay.

        Args:
            scores: float array of the weight's shape.
            alive: boolean array of the same shape, false for weights that are pruned for good;
                `None` if every weight may be kept.
            layout: roles of the axes.
        """
        if alive is None:
            return self.unit_scores(scores, layout)
        ranks = self.unit_scores(np.where(alive, scores, 0), layout)
        ranks[self.unit_scores(alive.astype(np.float32), layout) == 0] = -np.inf
        return ranks

    def check_target(self, sparsity: float) -> None:
        """Refuse a final sparsity that the pattern cannot have."""

    @classmethod
    def get(cls, identifier: Any) -> Any:
        """Turn a name, an "n:m" string, a serialized dict or a pattern into a pattern.

        Example:
            >>> Pattern.get("2:4"), Pattern.get("filter")
            (NM(n=2, m=4, axis='input'), Filter())
        """
        if isinstance(identifier, str) and ":" in identifier:
            n, _, m = identifier.partition(":")
            if not (n.isdigit() and m.isdigit()):
                raise InvalidArgumentError(
                    f"An N:M pattern is written like '2:4'. Received: {identifier!r}"
                )
            return cls._class_named("NM")(int(n), int(m))
        return super().get(identifier)

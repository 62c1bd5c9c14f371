"""One threshold over all weights: each layer gets the sparsity that its scores deserve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.allocation.base import Allocation, WeightInfo
from tfprune.errors import InvalidArgumentError


@dataclass(frozen=True)
class Global(Allocation):
    """One threshold over all weights, within bounds for each.

    Args:
        min_sparsity: no weight ends with a lower sparsity, to one unit of the pattern.
        max_sparsity: no weight ends with a higher sparsity, to one unit of the pattern. Every
            weight keeps its best unit anyhow.

    Example:
        >>> Global(max_sparsity=0.95).bounds
        (0.0, 0.95)
    """

    min_sparsity: float = 0.0
    max_sparsity: float = 1.0
    one_threshold: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.min_sparsity <= self.max_sparsity <= 1:
            raise InvalidArgumentError(
                "The bounds must be fractions with 0 <= min_sparsity <= max_sparsity <= 1. "
                f"Received: min_sparsity={self.min_sparsity!r}, max_sparsity={self.max_sparsity!r}"
            )

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and highest final sparsity of a weight."""
        return self.min_sparsity, self.max_sparsity

    def sparsities(
        self, sparsity: float, weights: Sequence[WeightInfo], final_sparsity: float
    ) -> list[float]:
        """Return `sparsity` for each weight: what they have on average.

        Raises:
            InvalidArgumentError: if the final sparsity is not within the bounds.
        """
        if not self.min_sparsity <= final_sparsity <= self.max_sparsity:
            raise InvalidArgumentError(
                f"A final sparsity of {final_sparsity:g} over all weights is impossible if each "
                f"has at least {self.min_sparsity:g} and at most {self.max_sparsity:g}."
            )
        return [sparsity] * len(weights)


@dataclass(frozen=True)
class Lamp(Allocation):
    """One threshold over scores that LAMP makes comparable between layers.

    Source: Lee et al. (2021), "Layer-adaptive Sparsity for the Magnitude-based Pruning".

    Example:
        >>> Lamp().rescale(np.array([300.0, 0.0, 400.0]), None).tolist()
        [0.36, 0.0, 1.0]
    """

    one_threshold: ClassVar[bool] = True

    def sparsities(
        self, sparsity: float, weights: Sequence[WeightInfo], final_sparsity: float
    ) -> list[float]:
        """Return `sparsity` for each weight: what they have on average."""
        return [sparsity] * len(weights)

    def rescale(self, scores: np.ndarray, alive: np.ndarray | None) -> np.ndarray:
        """Return the LAMP scores; weights that stay pruned have 0, and do not count."""
        return lamp_scores(scores if alive is None else np.where(alive, scores, 0))


def lamp_scores(scores: np.ndarray) -> np.ndarray:
    """Return each square divided by the sum of all squares of scores at least as large.

        lamp(u) = s(u)^2 / sum of s(v)^2 over all v with s(v) >= s(u)

    The order within the layer stays; a largest score that has no equal becomes 1, so that no layer
    is pruned completely before another one. Negative scores, which the paper does not have, get the
    negative of what their magnitude gets, so that their order stays as well.

    Args:
        scores: float array of any shape, such as the magnitudes of a layer's weights.

    Returns:
        Float array of the same shape and dtype; equal where scores are equal, 0 where they are 0.

    Source: Lee et al. (2021), "Layer-adaptive Sparsity for the Magnitude-based Pruning".

    Example:
        >>> lamp_scores(np.array([3.0, 0.0, 4.0])).tolist()
        [0.36, 0.0, 1.0]
    """
    values, places, counts = np.unique(np.abs(scores), return_inverse=True, return_counts=True)
    squares = np.square(values, dtype=np.float64)
    sums = np.cumsum((squares * counts)[::-1])[::-1]
    ratios = np.divide(squares, sums, out=np.zeros_like(squares), where=sums != 0)
    return np.copysign(ratios.astype(scores.dtype)[places].reshape(scores.shape), scores)

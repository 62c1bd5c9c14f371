"""Second-order criteria: by how much the loss grows when a weight goes, around a minimum.

The Hessian is stood in for by the empirical Fisher information F, the mean of g g^T over single
examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.criteria.base import Criterion, WeightView


@dataclass(frozen=True)
class Fisher(Criterion):
    """Score w^2 F_ii / 2, with the diagonal of F: optimal brain damage.

    Source: LeCun, Denker & Solla (1990), "Optimal Brain Damage".

    Example:
        >>> evidence = {"squared_gradient": np.array([0.5, 0.25])}
        >>> Fisher().score(WeightView(np.array([-1.0, 4.0]), evidence=evidence)).tolist()
        [0.25, 2.0]
    """

    evidence: ClassVar[tuple[str, ...]] = ("squared_gradient",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return w^2 F_ii / 2."""
        return np.square(weight.values) * weight.evidence["squared_gradient"] / 2


@dataclass(frozen=True)
class BlockFisher(Criterion):
    """Score w^2 / (2 (F^-1)_ii), with F in blocks of 16 weights of one output.

    That is how much the loss grows if the other weights of the block make up for the one that
    goes - as training after it lets them - so what is redundant scores low. F takes 8.5 float32
    numbers per weight, so a large model is gone through in portions; see
    `tfprune.evidence.fisher`.

    Source: Singh & Alistarh (2020), "WoodFisher: Efficient Second-Order Approximation for Neural
    Network Compression".

    Example:
        >>> evidence = {"block_fisher_inverse_diagonal": np.array([2.0, np.inf])}
        >>> BlockFisher().score(WeightView(np.array([-2.0, 4.0]), evidence=evidence)).tolist()
        [1.0, 0.0]
    """

    evidence: ClassVar[tuple[str, ...]] = ("block_fisher_inverse_diagonal",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return w^2 / (2 (F^-1)_ii)."""
        return np.square(weight.values) / (2 * weight.evidence["block_fisher_inverse_diagonal"])

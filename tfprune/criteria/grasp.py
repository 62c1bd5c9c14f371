"""GraSP: keep the weights that the gradient flow needs (Wang et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.criteria.base import Criterion, WeightView


@dataclass(frozen=True)
class Grasp(Criterion):
    """Score w * H g, made for untrained networks; scores may be negative.

    Removing w changes the gradient's squared norm, g^T g, by -2 w * H g to first order. The highest
    scores belong to the weights without which training slows down most; without those of negative
    score the gradient even grows. The paper's S is the negative of this one, and it prunes the
    highest S.

    Source: Wang, Zhang & Grosse (2020), "Picking Winning Tickets Before Training by Preserving
    Gradient Flow".

    Example:
        >>> evidence = {"hessian_gradient": np.array([0.5, 0.5])}
        >>> Grasp().score(WeightView(np.array([-1.0, 2.0]), evidence=evidence)).tolist()
        [-0.5, 1.0]
    """

    evidence: ClassVar[tuple[str, ...]] = ("hessian_gradient",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return w * H g."""
        return weight.values * weight.evidence["hessian_gradient"]

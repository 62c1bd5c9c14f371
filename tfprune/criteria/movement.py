"""Movement: weights that training drives towards zero matter least (Sanh et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfprune.criteria.base import Criterion, WeightView


@dataclass(frozen=True)
class Movement(Criterion):
    """Score the sum of `-w * dL/dw` over all training steps so far.

    It is summed inside of the compiled step, and saved with the model. Before anything has been
    summed, at the first step of a training, the magnitude decides. Made for fine-tuning a
    pretrained model, best under `allocation="global"`.

    Source: Sanh, Wolf & Rush (2020), "Movement Pruning: Adaptive Sparsity by Fine-Tuning".

    Example:
        >>> evidence = {"accumulated": np.array([0.5, -2.0])}
        >>> Movement().score(WeightView(np.array([1.0, 3.0]), evidence=evidence)).tolist()
        [0.5, -2.0]
    """

    accumulates: ClassVar[bool] = True

    def increment(self, values: Any, gradient: Any) -> Any:
        """Return `-values * gradient`: positive where the step leads away from zero."""
        return -values * gradient

    def score(self, weight: WeightView) -> np.ndarray:
        """Return the sum."""
        movement = weight.evidence["accumulated"]
        return movement.copy() if movement.any() else np.abs(weight.values)

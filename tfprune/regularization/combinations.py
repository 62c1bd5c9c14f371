"""Several regularizers or constraints on one weight, which Keras has room for one of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class RegularizerSum(keras.regularizers.Regularizer):
    """The sum of several penalties.

    Args:
        parts: the regularizers, or their configs.

    Example:
        >>> import numpy as np
        >>> both = RegularizerSum([keras.regularizers.L1(0.5), keras.regularizers.L2(0.25)])
        >>> float(both(np.array([2.0, -2.0])))  # 0.5 * 4 + 0.25 * 8
        4.0
    """

    parts: tuple[Any, ...]

    def __post_init__(self) -> None:
        # A frozen dataclass is filled in through object.__setattr__.
        object.__setattr__(self, "parts", tuple(map(keras.regularizers.get, self.parts)))

    def __call__(self, x: Any) -> Any:
        """Return the sum."""
        return sum(part(x) for part in self.parts)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"parts": [keras.regularizers.serialize(part) for part in self.parts]}


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class ConstraintChain(keras.constraints.Constraint):
    """Several constraints, one after the other; the last one surely holds.

    Args:
        parts: the constraints, or their configs.

    Example:
        >>> import numpy as np
        >>> both = ConstraintChain([keras.constraints.NonNeg(), keras.constraints.UnitNorm()])
        >>> np.asarray(both(np.array([-3.0, 2.0]))).round(4).tolist()
        [0.0, 1.0]
    """

    parts: tuple[Any, ...]

    def __post_init__(self) -> None:
        # A frozen dataclass is filled in through object.__setattr__.
        object.__setattr__(self, "parts", tuple(map(keras.constraints.get, self.parts)))

    def __call__(self, w: Any) -> Any:
        """Return the constrained weight."""
        for part in self.parts:
            w = part(w)
        return w

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"parts": [keras.constraints.serialize(part) for part in self.parts]}

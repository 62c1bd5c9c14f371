"""A range for every weight, which Keras's constraints do not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from tfprune.errors import InvalidArgumentError


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class ClipRange(keras.constraints.Constraint):
    """Clip every weight to [low, high].

    Args:
        low: smallest value.
        high: largest value.

    Raises:
        InvalidArgumentError: if `low` is above `high`, or one is not a number.

    Example:
        >>> import numpy as np
        >>> np.asarray(ClipRange(-1.0, 0.5)(np.array([-3.0, 0.25, 2.0]))).tolist()
        [-1.0, 0.25, 0.5]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        # NaN compares false, so it is refused too.
        if not self.low <= self.high:
            raise InvalidArgumentError(
                f"`low` must not be above `high`. Received: low={self.low!r}, high={self.high!r}"
            )

    def __call__(self, w: Any) -> Any:
        """Return the clipped weight."""
        return keras.ops.clip(w, self.low, self.high)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"low": self.low, "high": self.high}

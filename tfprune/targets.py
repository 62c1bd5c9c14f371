"""Targets of `tfprune.shrink`: how much of a model is to remain, and of what.

A fraction is what remains of the given model - `Flops(0.5)` halves the work -, a whole number from
1 on is the amount itself: `Parameters(200_000)`. No TensorFlow here; `tfprune.structured.meters`
measures.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

from tfprune.configurable import Configurable
from tfprune.errors import InvalidArgumentError, InvalidTypeError


@dataclass(frozen=True)
class Target(Configurable):
    """Base class of the targets.

    Args:
        amount: a fraction in (0, 1) of the given model's, or the amount itself.

    Raises:
        InvalidArgumentError: for an amount that is not above 0, or a fraction above 1.
        InvalidTypeError: for an amount that is not a number.
    """

    amount: float

    def __post_init__(self) -> None:
        amount = self.amount
        if isinstance(amount, bool) or not isinstance(amount, numbers.Real):
            raise InvalidTypeError(
                f"`amount` must be a number, such as {type(self).__name__}(0.5) to keep half. "
                f"Received: {amount!r}"
            )
        if not (0 < amount < 1 or (self._is_amount(amount))):
            raise InvalidArgumentError(
                f"`amount` must be what remains, as a fraction in (0, 1)"
                f"{self._or_whole}: pass 0.5 to keep half. Received: {amount!r}"
            )

    @property
    def is_fraction(self) -> bool:
        """Whether the amount is a fraction of the given model's."""
        return self.amount < 1

    def wanted(self, total: float) -> float:
        """Return the amount to reach for a model that has `total`."""
        return self.amount * total if self.is_fraction else float(self.amount)

    _or_whole = ", or a whole number of at least 1"

    def _is_amount(self, amount: Any) -> bool:
        return amount >= 1 and float(amount).is_integer()


@dataclass(frozen=True)
class Channels(Target):
    """Keep this fraction of the channels that may be cut; what a plain float stands for.

    Example:
        >>> Channels(0.5).wanted(256)
        128.0
    """

    _or_whole = ""

    def _is_amount(self, amount: Any) -> bool:
        return False


@dataclass(frozen=True)
class Parameters(Target):
    """Keep so many parameters, those that training does not change included.

    Example:
        >>> Parameters(0.5).wanted(1000), Parameters(200).wanted(1000)
        (500.0, 200.0)
    """


@dataclass(frozen=True)
class Flops(Target):
    """Keep so many floating-point operations per example, as `tfprune.profile` counts them.

    Args:
        amount: as in every target.
        input_shapes: as in `tfprune.profile`, for a model that leaves sizes open.
    """

    input_shapes: Any = None


@dataclass(frozen=True)
class Bytes(Target):
    """Keep so many bytes of the exported artifact: it is written to be weighed.

    Args:
        amount: as in every target.
        format: a format of `tfprune.export_model`.
        input_shape: as in `tfprune.export_model`, for a model that leaves sizes open.
    """

    format: str = "tflite"
    input_shape: Any = None

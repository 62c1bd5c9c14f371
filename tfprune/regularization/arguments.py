"""Checks of what a user passes here."""

from __future__ import annotations

import math
from typing import Any

from tfprune.errors import InvalidArgumentError, InvalidTypeError


def check_number(name: str, value: Any, positive: bool = False) -> None:
    """Refuse anything but a finite number of at least 0.

    Args:
        name: name of the argument.
        value: what was passed.
        positive: whether 0 is refused too.

    Raises:
        InvalidTypeError: if it is not a number.
        InvalidArgumentError: if it is too small or not finite.
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise InvalidTypeError(f"`{name}` must be a number. Received: {value!r}")
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        bound = "above 0" if positive else "at least 0"
        raise InvalidArgumentError(f"`{name}` must be finite and {bound}. Received: {value!r}")


def check_count(name: str, value: Any) -> None:
    """Refuse anything but an int of at least 1.

    Raises:
        InvalidTypeError: if it is not an int.
        InvalidArgumentError: if it is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"`{name}` must be an int. Received: {value!r}")
    if value < 1:
        raise InvalidArgumentError(f"`{name}` must be at least 1. Received: {value!r}")

"""Keys that name weights: a layer's name, a weight's path, or a regular expression on the path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tfprune.allocation.base import WeightInfo
from tfprune.errors import InvalidArgumentError, InvalidTypeError

Key = str | re.Pattern
_NAMES_SHOWN = 12


def as_key(value: Any) -> Key:
    """Return a key for what a user passed, or what was saved.

    Raises:
        InvalidTypeError: if it is neither a string nor a regular expression.

    Example:
        >>> as_key({"regex": "conv._block"}) == re.compile("conv._block")
        True
    """
    if isinstance(value, str | re.Pattern):
        return value
    if isinstance(value, dict) and "regex" in value:
        return re.compile(value["regex"], value.get("flags", 0))
    raise InvalidTypeError(
        "A key is a layer's name, a weight's path, or a `re.compile(...)` that searches the path. "
        f"Received: {value!r}"
    )


def saved_key(key: Key) -> str | dict[str, Any]:
    """Return the key as a plain value, which `as_key` understands."""
    return key if isinstance(key, str) else {"regex": key.pattern, "flags": key.flags}


def first_matches(keys: Sequence[Key], weights: Sequence[WeightInfo]) -> list[int | None]:
    """Return for each weight the index of the first key that matches it, or `None`.

    Raises:
        InvalidArgumentError: if a key decides on no weight.
    """
    matches = [
        next((i for i, key in enumerate(keys) if _matches(key, weight)), None) for weight in weights
    ]
    idle = [repr(key) for i, key in enumerate(keys) if i not in matches]
    if idle:
        raise InvalidArgumentError(
            f"Nothing that is pruned goes by {', '.join(idle)}. A key is a layer's name, a "
            "weight's path or a `re.compile(...)` that searches the path, and the first that fits "
            f"decides. Weight paths are: {list_paths(weights)}"
        )
    return matches


def list_paths(weights: Sequence[WeightInfo]) -> str:
    """Return the weights' paths as a text of bounded length."""
    more = len(weights) - _NAMES_SHOWN
    shown = ", ".join(weight.path for weight in weights[:_NAMES_SHOWN])
    return f"{shown}, ... ({more} more)" if more > 0 else shown


def _matches(key: Key, weight: WeightInfo) -> bool:
    if isinstance(key, re.Pattern):
        return key.search(weight.path) is not None
    # A Sequential's name leads the paths of its weights until it is loaded from a file.
    model = f"{weight.layers[0]}/" if weight.layers else ""
    return key in weight.layers or key.removeprefix(model) == weight.path.removeprefix(model)

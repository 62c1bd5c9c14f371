"""The table of rules, and what every rule is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidArgumentError
from tfprune.structured.probe import OperationProbe, ProbeError
from tfprune.structured.wiring import Book, Wiring

Shape = tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Site:
    """One call of a layer with weights.

    Args:
        layer: the layer.
        path: its name in reports.
        inputs: the channels of each tensor that it is called with.
        shapes: the shape of each of them, batch included.
        output_shapes: the shape of each output.
        roles: for each input the name of the argument that it is, where the rule asks for it.
    """

    layer: Any
    path: str
    inputs: Sequence[Wiring | None]
    shapes: Sequence[Shape]
    output_shapes: Sequence[Shape]
    roles: Sequence[str] = ()

    def inside(self, layer: Any, **changes: Any) -> Site:
        """Return the site of a layer inside of this one."""
        return replace(self, layer=layer, **changes)


Rule = Callable[[Site, Book], list[Wiring | None]]

_RULES: dict[type, Rule] = {}
_SEVERAL: set[Rule] = set()


def rule(*classes: type, several: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for layer classes; a subclass counts as its base.

    Args:
        classes: the classes.
        several: whether the rule understands calls with more than one tensor.

    Raises:
        InvalidArgumentError: if a class has a rule already.
    """

    def register(function: Rule) -> Rule:
        for cls in classes:
            if cls in _RULES:
                raise InvalidArgumentError(f"{cls.__name__} has a rule already.")
            _RULES[cls] = function
        if several:
            _SEVERAL.add(function)
        return function

    return register


def rule_for(layer: Any, tensors: int = 1) -> Rule | None:
    """Return the rule for a call of a layer, if its class is one of Keras's own that has one.

    A user's subclass may compute something else, so it is probed instead.
    """
    if not type(layer).__module__.startswith("keras."):
        return None
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return None
    found = next((_RULES[cls] for cls in type(layer).__mro__ if cls in _RULES), None)
    return found if tensors == 1 or found in _SEVERAL else None


def after_activation(site: Site, activation: Any, ids: np.ndarray, book: Book) -> None:
    """Freeze the channels that a layer makes if its activation function mixes them."""
    if activation is not None and not _is_elementwise(activation):
        name = getattr(activation, "__name__", type(activation).__name__)
        book.labels.freeze(ids, f"the activation {name!r} of {site.path} mixes channels")


class _Function:
    """An activation function, as a call that can be probed."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def run(self, tensors: list[Any]) -> list[Any]:
        return [self._function(tensors[0])]


_ELEMENTWISE: dict[Any, bool] = {keras.activations.linear: True}


def _is_elementwise(activation: Any) -> bool:
    if activation not in _ELEMENTWISE:
        size = 6
        probe = OperationProbe(
            _Function(activation), [keras.KerasTensor((None, size))], [Wiring(1, np.arange(size))]
        )
        try:
            [[codes]] = probe.trace([np.arange(size)])
            _ELEMENTWISE[activation] = np.array_equal(codes, np.arange(size))
        except ProbeError:
            _ELEMENTWISE[activation] = False
    return _ELEMENTWISE[activation]

"""The registry of MAC rules: one dict, one decorator.

A rule sees shapes, never values. What it returns says which kernel each MAC multiplies with, so the
effective MACs follow from that kernel's zeros, and the rule need not know about pruning.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tfprune.errors import InvalidArgumentError, InvalidTypeError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """Shapes of one call of a layer.

    Attributes:
        inputs: shapes of the tensors in the first argument, batch first.
        outputs: shapes of the output tensors, batch first.
        arguments: every argument of `call` by name, with each tensor replaced by its shape.
        repeats: how often the call runs, e.g. once per time step. Rules count a single run.
    """

    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    repeats: int = 1

    @property
    def input_elements(self) -> int:
        """Number of elements of the first input tensor."""
        return math.prod(self.inputs[0])

    @property
    def output_elements(self) -> int:
        """Number of elements of the first output tensor."""
        return math.prod(self.outputs[0])


@dataclass(frozen=True)
class Work:
    """A piece of arithmetic.

    Attributes:
        macs: multiply-accumulates.
        kernel: the weight that they multiply with, whose zeros may be skipped; None where two
            activations are multiplied.
        flops: floating-point operations besides the two of each MAC.
    """

    macs: int = 0
    kernel: Any = None
    flops: int = 0


@dataclass(frozen=True)
class Rule:
    """How to count one class, see `register_macs`."""

    count: Callable[[Any, Call], Iterable[Work]]
    includes: tuple[type, ...] = ()
    applies: Callable[[Any], bool] | None = None


_RULES: dict[type, Rule] = {}


def register_macs(
    *layer_classes: type,
    includes: tuple[type, ...] = (),
    applies: Callable[[Any], bool] | None = None,
) -> Callable[[Callable], Callable]:
    """Register the MAC rule of layer classes; their subclasses count alike.

    Args:
        *layer_classes: Keras layer (or operation) classes that have no rule of their own yet.
        includes: classes of sublayers that the rule counts itself. When the layer calls them they
            are not counted again, and their weights belong to the layer's row. All other
            sublayers are counted by their own rules.
        applies: tells whether the rule can count a given layer; None for always.

    Returns:
        The decorator for a function `rule(layer, call)` that returns an iterable of `Work`.

    Raises:
        InvalidArgumentError: if a class has a rule already.
        InvalidTypeError: if something other than a class is given.

    Example:
        >>> import keras
        >>> class Scale(keras.layers.Layer):
        ...     def build(self, input_shape):
        ...         self.scale = self.add_weight(shape=input_shape[-1:])
        ...     def call(self, inputs):
        ...         return inputs * self.scale
        >>> @register_macs(Scale)
        ... def count_scale(layer, call):
        ...     return [Work(macs=call.output_elements, kernel=layer.scale)]
        >>> model = keras.Sequential([keras.Input((4,)), Scale()])
        >>> from tfprune.profiling import profile
        >>> profile(model).macs
        4
    """
    for layer_class in layer_classes:
        if not isinstance(layer_class, type):
            raise InvalidTypeError(
                "`register_macs` takes layer classes, as in `@register_macs(MyLayer)`. "
                f"Received: {layer_class!r}."
            )
        if layer_class in _RULES:
            raise InvalidArgumentError(
                f"{layer_class.__name__} has a MAC rule already. Register a subclass instead: "
                "the rule of the most derived class is used."
            )

    def register(count: Callable[[Any, Call], Iterable[Work]]) -> Callable:
        for layer_class in layer_classes:
            _RULES[layer_class] = Rule(count, includes, applies)
        return count

    return register


def find_rule(layer: Any) -> Rule | None:
    """Return the rule of the most derived class that has one and applies, or None.

    Args:
        layer: a Keras layer or operation.
    """
    for layer_class in type(layer).__mro__:
        rule = _RULES.get(layer_class)
        if rule is not None and (rule.applies is None or rule.applies(layer)):
            return rule
    return None

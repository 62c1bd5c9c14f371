"""Activations, merges and pooling: no MACs, a few FLOPs per element."""

import math
from collections.abc import Iterable

import keras
from keras.src.ops import numpy as numpy_operations

from tfprune.profiling.rules.registry import Call, Work, register_macs


def activation_flops(activation, elements: int) -> int:
    """FLOPs of an activation function: one per element, none for the identity.

    Args:
        activation: a Keras activation function, or None.
        elements: number of elements that it is applied to.
    """
    return 0 if activation in (None, keras.activations.linear) else elements


@register_macs(keras.layers.Activation)
def count_activation(layer, call: Call) -> Iterable[Work]:
    """One per element."""
    yield Work(flops=activation_flops(layer.activation, call.output_elements))


@register_macs(
    keras.layers.ELU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ReLU,
    keras.layers.Softmax,
)
def count_activation_layer(layer, call: Call) -> Iterable[Work]:
    """One per element."""
    yield Work(flops=call.output_elements)


@register_macs(
    keras.layers.Add,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.Subtract,
)
def count_merge(layer, call: Call) -> Iterable[Work]:
    """One less than the inputs, per element."""
    yield Work(flops=(len(call.inputs) - 1) * call.output_elements)


@register_macs(keras.layers.Average)
def count_average(layer, call: Call) -> Iterable[Work]:
    """A sum and a division."""
    yield Work(flops=len(call.inputs) * call.output_elements)


@register_macs(
    numpy_operations.Add,
    numpy_operations.Divide,
    numpy_operations.Maximum,
    numpy_operations.Minimum,
    numpy_operations.Multiply,
    numpy_operations.Power,
    numpy_operations.Subtract,
    numpy_operations.TrueDivide,
)
def count_inline_arithmetic(operation, call: Call) -> Iterable[Work]:
    """`x + y` and the like, written between the layers of a functional model."""
    yield Work(flops=call.output_elements)


@register_macs(
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
)
def count_pooling(layer, call: Call) -> Iterable[Work]:
    """One per element of the window, at every output."""
    yield Work(flops=call.output_elements * math.prod(layer.pool_size))


@register_macs(
    keras.layers.AdaptiveAveragePooling1D,
    keras.layers.AdaptiveAveragePooling2D,
    keras.layers.AdaptiveAveragePooling3D,
    keras.layers.AdaptiveMaxPooling1D,
    keras.layers.AdaptiveMaxPooling2D,
    keras.layers.AdaptiveMaxPooling3D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
)
def count_global_pooling(layer, call: Call) -> Iterable[Work]:
    """Every input element once."""
    yield Work(flops=call.input_elements)

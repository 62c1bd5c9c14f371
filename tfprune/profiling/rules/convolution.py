"""Convolutions: plain, transposed, depthwise and separable, in one to three dimensions.

Every element of a kernel is used once per position, groups included, so MACs are the kernel's size
times the number of positions: of the output, or of the input for a transposed convolution.
"""

import math
from collections.abc import Iterable

import keras

from tfprune.profiling.rules.elementwise import activation_flops
from tfprune.profiling.rules.registry import Call, Shape, Work, register_macs


@register_macs(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
def count_convolution(layer, call: Call) -> Iterable[Work]:
    """The kernel meets every output position."""
    positions = _positions(call.outputs[0], layer)
    yield Work(macs=positions * math.prod(layer.kernel.shape), kernel=layer.kernel)
    yield Work(flops=_bias_and_activation(layer, call))


@register_macs(
    keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose
)
def count_transposed_convolution(layer, call: Call) -> Iterable[Work]:
    """The kernel meets every input position."""
    positions = _positions(call.inputs[0], layer)
    yield Work(macs=positions * math.prod(layer.kernel.shape), kernel=layer.kernel)
    yield Work(flops=_bias_and_activation(layer, call))


@register_macs(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def count_depthwise_convolution(layer, call: Call) -> Iterable[Work]:
    """The kernel meets every output position, each channel with its own filters."""
    positions = _positions(call.outputs[0], layer)
    yield Work(macs=positions * math.prod(layer.kernel.shape), kernel=layer.kernel)
    yield Work(flops=_bias_and_activation(layer, call))


@register_macs(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def count_separable_convolution(layer, call: Call) -> Iterable[Work]:
    """A depthwise kernel with the strides, then a 1x1 kernel on the same positions."""
    positions = _positions(call.outputs[0], layer)
    for kernel in (layer.depthwise_kernel, layer.pointwise_kernel):
        yield Work(macs=positions * math.prod(kernel.shape), kernel=kernel)
    yield Work(flops=_bias_and_activation(layer, call))


def _positions(shape: Shape, layer) -> int:
    """Number of spatial positions in a batch of feature maps."""
    channels_last = layer.data_format == "channels_last"
    return math.prod(shape[:-1] if channels_last else (shape[0], *shape[2:]))


def _bias_and_activation(layer, call: Call) -> int:
    bias = call.output_elements if layer.use_bias else 0
    return bias + activation_flops(layer.activation, call.output_elements)

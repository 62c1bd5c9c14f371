"""Evidence per input or per output, in a shape that can be broadcast to the weight's own."""

from __future__ import annotations

import numpy as np
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv

from tfprune.errors import UnsupportedModelError
from tfprune.evidence.layer_inputs import RECURRENT_CELLS
from tfprune.kernel_layout import KernelLayout
from tfprune.pruned_weight import PrunedWeight


def along_outputs(weight: PrunedWeight, values: np.ndarray) -> np.ndarray:
    """Put one value per unit of a layer on the output axes of its weight.

    Args:
        weight: the weight; all axes but the outputs get the size 1.
        values: float array `(units,)`. The units of a recurrent cell are repeated for each of its
            gates; those of a depthwise convolution are its channels, input by input.

    Raises:
        UnsupportedModelError: if the layer has other units than the weight has outputs.
    """
    layout = weight.layout
    kept_axes = layout.output_axes
    if isinstance(weight.layer, BaseDepthwiseConv):
        kept_axes = layout.input_axes + layout.output_axes
    shape = tuple(n if axis in kept_axes else 1 for axis, n in enumerate(layout.shape))
    narrow = KernelLayout(shape, layout.input_axes, layout.output_axes)
    if isinstance(weight.layer, RECURRENT_CELLS):
        values = np.tile(values, narrow.size // values.size)
    if values.size != narrow.size:
        raise UnsupportedModelError(
            f"{weight.path} has {narrow.size} outputs, but its layer {weight.layer.name!r} "
            f"({type(weight.layer).__name__}) puts out {values.size} units, so it is not known "
            "which unit belongs to which output. Leave it out with `exclude=`."
        )
    return narrow.from_taps(values)


def along_inputs(weight: PrunedWeight, values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Put values on some axes of a weight.

    Args:
        weight: the weight; all other axes get the size 1.
        values: float array, one axis for each of `axes`. If the last one is longer than the
            weight's, it holds the channels of the groups of a grouped convolution.
        axes: axes of the weight, ascending.
    """
    shape = weight.layout.shape
    groups = values.shape[-1] // shape[axes[-1]]
    if groups > 1:
        grouped = values.reshape(*values.shape[:-1], groups, shape[axes[-1]]).swapaxes(-1, -2)
        return grouped.repeat(shape[-1] // groups, axis=-1)
    return values.reshape([n if axis in axes else 1 for axis, n in enumerate(shape)])

"""A layer's input as the matrix that its kernel is multiplied with, and its output as one of units.

For a Dense layer that is the input itself, for a convolution the im2col matrix: each row holds the
patch under the kernel at one position of one example, in the order `(taps, inputs)` of
`KernelLayout.to_taps`. So `input_matrix @ kernel_matrix` is the output before bias and activation.
The patches are views into the padded input; memory is taken only for the rows that are asked for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv
from keras.src.layers.convolutional.base_separable_conv import BaseSeparableConv
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell
from numpy.lib.stride_tricks import sliding_window_view

from tfprune.errors import UnsupportedModelError
from tfprune.pruned_weight import PrunedWeight

RECURRENT_CELLS = (
    keras.layers.LSTMCell,
    keras.layers.GRUCell,
    keras.layers.SimpleRNNCell,
    ConvLSTMCell,
)

SUPPORTED_INPUTS = (
    "kernels of Dense, EinsumDense, Conv1D, Conv2D, Conv3D, separable and depthwise convolutions, "
    "and of the cells of LSTM, GRU (the recurrent kernel with reset_after=True only), SimpleRNN "
    "and ConvLSTM"
)


@dataclass(frozen=True, eq=False)
class InputView:
    """What a weight is multiplied with.

    Args:
        array: float array, `(*rows, *columns)`; a view into the layer's input where possible.
        columns: the axes of the weight that the trailing axes of the array stand for, ascending.
            The channels of a grouped convolution are all there, group by group.
    """

    array: np.ndarray
    columns: tuple[int, ...]


def find_input_view(weight: PrunedWeight) -> Callable[[Any], InputView] | None:
    """Return the function that turns the inputs of a call into an `InputView`, or `None`.

    Args:
        weight: a weight and its layer.

    Returns:
        A function of the inputs, as `watch_layers` reports them; `None` if the layer is of a kind
        whose input cannot be seen that way.
    """
    layer, variable = weight.layer, weight.variable
    if isinstance(layer, RECURRENT_CELLS):
        return _find_cell_view(layer, variable)
    for kind, views in _VIEWS.items():
        if isinstance(layer, kind):
            names = (name for name in views if getattr(layer, name) is variable)
            return next((functools.partial(views[name], layer) for name in names), None)
    return None


def input_matrix(
    weight: PrunedWeight,
    inputs: Any,
    max_rows: int | None = None,
    seed: int | np.random.Generator = 0,
) -> np.ndarray:
    """Return a layer's input as the matrix that the kernel is multiplied with.

    Args:
        weight: the kernel, and its layer.
        inputs: inputs of one call, as `watch_layers` reports them.
        max_rows: at most so many rows are drawn, at random and without replacement; all by default.
        seed: seed of the draw, or a generator, which draws other rows in every call.

    Returns:
        Float array `(rows, taps * inputs)`, rows in the order of the layer's output positions.

    Raises:
        UnsupportedModelError: if the layer's output is not a product of one such matrix.

    Example:
        >>> from tfprune.kernel_layout import KernelLayout
        >>> conv = keras.layers.Conv1D(1, 2)
        >>> conv.build((None, 4, 1))
        >>> weight = PrunedWeight(conv.kernel, KernelLayout.default((2, 1, 1)), owners=(conv,))
        >>> input_matrix(weight, np.array([[[1.0], [2.0], [3.0], [4.0]]])).tolist()
        [[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]
    """
    view_of = find_input_view(weight)
    taps, depth, _ = weight.layout.taps_shape
    view = None if view_of is None or _is_depthwise(weight) else view_of(inputs)
    # Columns that are outputs too, or more channels than the kernel has: groups of outputs that
    # see inputs of their own.
    if (
        view is None
        or set(view.columns) & set(weight.layout.output_axes)
        or math.prod(view.array.shape[-len(view.columns) :]) != taps * depth
    ):
        raise unsupported_inputs([weight], but=", if the kernel is not grouped or depthwise")
    rows = view.array.shape[: -len(view.columns)]
    count = math.prod(rows)
    if max_rows is None or max_rows >= count:
        return view.array.reshape(count, taps * depth)
    chosen = np.random.default_rng(seed).choice(count, max_rows, replace=False)
    chosen.sort()
    return view.array[np.unravel_index(chosen, rows)].reshape(max_rows, taps * depth)


def output_matrix(weight: PrunedWeight, outputs: Any) -> np.ndarray:
    """Return a layer's output as a matrix with one column per unit.

    Args:
        weight: a weight, and its layer.
        outputs: outputs of one call, as `watch_layers` reports them, or what elementwise layers
            made of them.

    Returns:
        Float array `(rows, units)`. A recurrent cell has fewer units than its kernels have
        columns: one for all its gates; a depthwise convolution has one per channel.
    """
    layer = weight.layer
    if isinstance(layer, RECURRENT_CELLS):
        outputs = outputs[0]
    array = _channels_last(layer, _to_numpy(outputs))
    if isinstance(layer, keras.layers.EinsumDense) and layer.kernel is weight.variable:
        _, kernel, output = _einsum_letters(layer)
        columns = "".join(letter for letter in kernel if letter in output)
        array = np.einsum(f"{output}->{_einsum_rows(output, kernel)}{columns}", array)
        return array.reshape(-1, math.prod(array.shape[array.ndim - len(columns) :]))
    return array.reshape(-1, array.shape[-1])


def unsupported_inputs(weights: list[PrunedWeight], but: str = "") -> UnsupportedModelError:
    """Build the error that names weights whose input cannot be written as a matrix."""
    names = [f"{weight.path} ({type(weight.layer).__name__})" for weight in weights]
    return UnsupportedModelError(
        f"What these weights are multiplied with is not known: {', '.join(names)}. Supported are "
        f"{SUPPORTED_INPUTS}{but}. Leave the others out with `exclude=`, or choose another "
        "criterion."
    )


def _find_cell_view(
    cell: keras.layers.Layer, variable: keras.Variable
) -> Callable[[Any], InputView] | None:
    convolutional = isinstance(cell, ConvLSTMCell)
    if variable is cell.kernel:
        view = _patches if convolutional else _dense_view
        return lambda inputs: view(cell, inputs[0])
    # Without `reset_after` a third of a GRU's recurrent kernel sees the state times a gate.
    if variable is not cell.recurrent_kernel or not getattr(cell, "reset_after", True):
        return None
    view = functools.partial(_patches, recurrent=True) if convolutional else _dense_view
    return lambda inputs: view(cell, keras.tree.flatten(inputs[1])[0])


def _is_depthwise(weight: PrunedWeight) -> bool:
    layer = weight.layer
    return isinstance(layer, BaseDepthwiseConv) or (
        isinstance(layer, BaseSeparableConv) and weight.variable is layer.depthwise_kernel
    )


def _einsum_letters(layer: keras.layers.EinsumDense) -> tuple[str, str, str]:
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    return inputs, kernel, output


def _einsum_rows(output: str, kernel: str) -> str:
    """Return the output's axes that the kernel lacks, in the order that einsum asks for."""
    letters = "".join(x for x in output.replace("...", "") if x not in kernel)
    return f"...{letters}" if "..." in output else letters


def _einsum_view(layer: keras.layers.EinsumDense, inputs: Any) -> InputView:
    letters, kernel, output = _einsum_letters(layer)
    columns = tuple(axis for axis, letter in enumerate(kernel) if letter in letters)
    order = _einsum_rows(output, kernel) + "".join(kernel[axis] for axis in columns)
    return InputView(np.einsum(f"{letters}->{order}", _to_numpy(inputs)), columns)


def _dense_view(layer: keras.layers.Layer, inputs: Any) -> InputView:
    return InputView(_to_numpy(inputs), columns=(0,))


def _between_the_convolutions(layer: BaseSeparableConv, inputs: Any) -> InputView:
    """Compute what the depthwise part of a separable convolution hands to the pointwise part."""
    outputs = keras.ops.depthwise_conv(
        inputs,
        layer.depthwise_kernel,
        strides=layer.strides,
        padding=layer.padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )
    return InputView(_channels_last(layer, _to_numpy(outputs)), columns=(layer.rank,))


def _patches(layer: Any, inputs: Any, *, recurrent: bool = False) -> InputView:
    """Return the patches under a kernel as an array `(batch, *positions, *taps, channels)`.

    A recurrent kernel of ConvLSTM has no strides, no dilation and `"same"` padding.
    """
    array = _channels_last(layer, _to_numpy(inputs))
    rank = array.ndim - 2
    steps, rates, padding = layer.strides, layer.dilation_rate, layer.padding
    if recurrent:
        steps, rates, padding = (1,) * rank, (1,) * rank, "same"
    spans = [(size - 1) * rate + 1 for size, rate in zip(layer.kernel_size, rates, strict=True)]
    if padding != "valid":
        sizes = zip(array.shape[1:-1], spans, steps, strict=True)
        array = np.pad(array, [(0, 0), *(_padding(padding, *size) for size in sizes), (0, 0)])
    windows = sliding_window_view(array, spans, axis=tuple(range(1, rank + 1)))
    positions = [slice(None, None, step) for step in steps]
    taps = [slice(None, None, rate) for rate in rates]
    windows = windows[(slice(None), *positions, slice(None), *taps)]
    return InputView(np.moveaxis(windows, rank + 1, -1), columns=tuple(range(rank + 1)))


def _padding(padding: str, size: int, span: int, step: int) -> tuple[int, int]:
    """Return how many zeros TensorFlow puts before and after one spatial axis."""
    if padding == "causal":
        return span - 1, 0
    total = max((math.ceil(size / step) - 1) * step + span - size, 0)
    return total // 2, total - total // 2


def _channels_last(layer: Any, array: np.ndarray) -> np.ndarray:
    if getattr(layer, "data_format", None) == "channels_first":
        return np.moveaxis(array, 1, -1)
    return array


def _to_numpy(tensor: Any) -> np.ndarray:
    array = keras.ops.convert_to_numpy(tensor)
    # bfloat16 is not numpy's own, and 16 bits are too few to sum up.
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


# The view of each weight, by its layer's class and its attribute there.
_VIEWS = {
    keras.layers.Dense: {"kernel": _dense_view},
    keras.layers.EinsumDense: {"kernel": _einsum_view},
    (BaseConv, BaseDepthwiseConv): {"kernel": _patches},
    BaseSeparableConv: {
        "depthwise_kernel": _patches,
        "pointwise_kernel": _between_the_convolutions,
    },
}

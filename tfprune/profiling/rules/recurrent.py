"""Recurrent layers: one step of a cell, times the number of steps.

A layer whose cell is known is counted as a whole and never by what it calls: on a GPU, Keras runs
LSTM and GRU in one fused operation, and the cell is not called at all. An RNN over a cell of your
own has no rule here: what the cell calls is recorded once and counted per step, see `recording`.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

import keras

from tfprune.profiling.rules.elementwise import activation_flops
from tfprune.profiling.rules.registry import Call, Work, find_rule, register_macs


@register_macs(keras.layers.SimpleRNNCell)
def count_simple_cell(cell, call: Call) -> Iterable[Work]:
    """One matrix for the input, one for the state: h = act(x W + b + h U)."""
    yield from _products(cell, positions=call.inputs[0][0])
    units = call.inputs[0][0] * cell.units
    bias = units if cell.use_bias else 0
    yield Work(flops=units + bias + activation_flops(cell.activation, units))


@register_macs(keras.layers.LSTMCell)
def count_lstm_cell(cell, call: Call) -> Iterable[Work]:
    """Four gates of x W + b + h U; c = f c + i g; h = o act(c)."""
    positions = call.inputs[0][0]
    yield from _products(cell, positions=positions)
    yield Work(flops=_lstm_gates(cell, positions * cell.units))


@register_macs(keras.layers.GRUCell)
def count_gru_cell(cell, call: Call) -> Iterable[Work]:
    """Three gates of x W + b + h U; h = z h + (1 - z) g."""
    positions = call.inputs[0][0]
    yield from _products(cell, positions=positions)
    units = positions * cell.units
    bias = positions * math.prod(cell.bias.shape) if cell.use_bias else 0
    # Three sums of x W and h U, the reset product, and four operations that mix old and new.
    activations = 2 * activation_flops(cell.recurrent_activation, units)
    activations += activation_flops(cell.activation, units)
    yield Work(flops=3 * units + units + 4 * units + bias + activations)


@register_macs(keras.layers.StackedRNNCells, applies=lambda stack: _all_known(stack.cells))
def count_stacked_cells(stack, call: Call) -> Iterable[Work]:
    """One step of each cell; only the batch size matters to the cells above."""
    for cell in stack.cells:
        yield from find_rule(cell).count(cell, call)


@register_macs(
    keras.layers.RNN,
    includes=(keras.layers.Layer,),
    applies=lambda layer: _all_known([layer.cell]),
)
def count_recurrent_layer(layer, call: Call) -> Iterable[Work]:
    """One step of the cell, times the steps."""
    batch, steps, *features = call.inputs[0]
    step = Call(inputs=((batch, *features),), outputs=())
    for work in find_rule(layer.cell).count(layer.cell, step):
        yield replace(work, macs=steps * work.macs, flops=steps * work.flops)


@register_macs(
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
    includes=(keras.layers.Layer,),
)
def count_convolutional_lstm(layer, call: Call) -> Iterable[Work]:
    """An LSTM whose products are convolutions, both onto the output's positions."""
    cell = layer.cell
    steps = call.inputs[0][1]
    shape = call.outputs[0]
    if layer.return_sequences:
        shape = (shape[0], *shape[2:])
    positions = math.prod(shape) // cell.filters
    for work in _products(cell, positions=positions):
        yield replace(work, macs=steps * work.macs)
    yield Work(flops=steps * _lstm_gates(cell, positions * cell.filters))


def _all_known(cells) -> bool:
    return all(find_rule(cell) is not None for cell in cells)


def _products(cell, *, positions: int) -> Iterable[Work]:
    for kernel in (cell.kernel, cell.recurrent_kernel):
        yield Work(macs=positions * math.prod(kernel.shape), kernel=kernel)


def _lstm_gates(cell, units: int) -> int:
    bias = 4 * units if cell.use_bias else 0
    activations = 3 * activation_flops(cell.recurrent_activation, units)
    activations += 2 * activation_flops(cell.activation, units)
    # Four sums of x W and h U, three operations for the carry, one for the output.
    return 4 * units + 3 * units + units + bias + activations

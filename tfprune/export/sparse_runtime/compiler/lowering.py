"""How each operator is said inside of sparse mode: one small rule per operator.

Inside, a map may be held in parts along its channels: a concatenation is nothing but a longer list
of parts, a convolution of it the sum of convolutions of the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tfprune.export.sparse_runtime.compiler.canonical import is_global_mean
from tfprune.export.sparse_runtime.compiler.convolution import Convolution, forms
from tfprune.export.sparse_runtime.compiler.costs import CostModel
from tfprune.export.sparse_runtime.compiler.depthwise import depthwise
from tfprune.export.sparse_runtime.compiler.emitter import CLAMPS, Emitter, mean
from tfprune.export.sparse_runtime.compiler.pooling import average, maximum
from tfprune.export.sparse_runtime.compiler.program import (
    NO_PADS,
    Op,
    Pads,
    Tensor,
    same_padding,
    windows,
)
from tfprune.export.sparse_runtime.compiler.reading import SAME
from tfprune.export.sparse_runtime.rules import UNARY

Parts = list[Tensor]


@dataclass(frozen=True)
class Context:
    """What rules know beside the operator.

    Args:
        costs: decides between forms.
        nonnegative: tensors that hold no negative value.
        lowest: stands for minus infinity.
        chosen: the form of each convolution, by its number, once it was compared with the others.
    """

    costs: CostModel
    nonnegative: set[Tensor]
    lowest: float = -1e30
    chosen: dict[Op, int] = field(default_factory=dict)


Rule = Callable[[Emitter, Op, list[Parts], Context], Parts]


class NotLoweredError(Exception):
    """An operator has no form inside of sparse mode; says why."""


def lower(emitter: Emitter, op: Op, inputs: list[Parts], context: Context) -> Parts:
    """Add the operators that compute one operator inside of sparse mode.

    Args:
        emitter: takes them.
        op: the operator.
        inputs: the parts of each of its activations.
        context: what else is known.

    Returns:
        The parts of its output.

    Raises:
        NotLoweredError: it has no form there.
    """
    rule = _RULES.get(op.code)
    if rule is None:
        raise NotLoweredError(f"{op.code} has no channels-first form")
    # A mean without the axes that it is over is one with them, and a change of shape outside.
    tensors = op.activations if op.code == "MEAN" else [*op.activations, op.output]
    if not all(tensor.is_map for tensor in tensors):
        raise NotLoweredError(f"{op.code} of tensors that are not maps of float32")
    if op.activation not in CLAMPS:
        raise NotLoweredError(f"{op.code} with an activation that is no clamp")
    emitter.name = op.output.name
    start = len(emitter.ops)
    parts = rule(emitter, op, inputs, context)
    for new in emitter.ops[start:]:
        new.origin = op
    return parts


def is_stem(op: Op) -> bool:
    """Whether an operator is the one convolution that enters sparse mode by itself."""
    return (
        op.code == "CONV_2D"
        and op.pads == ((1, 1), (1, 1))
        and op.inputs[1].shape[1:] == (3, 3, 3)
        and op.strides == (2, 2)
        and (op.options.dilationHFactor, op.options.dilationWFactor) == (1, 1)
        and op.inputs[0].is_map
        and op.activation in CLAMPS
    )


def _convolution(emitter: Emitter, op: Op, inputs: list[Parts], context: Context) -> Parts:
    filters, bias, stride = _checked(op)
    if filters.shape[3] != op.inputs[0].shape[3]:
        raise NotLoweredError("CONV_2D in groups")
    convolution = Convolution(filters, bias, op.activation, stride, op.pads)
    best, best_cost = None, np.inf
    for number, form in enumerate(forms(convolution)):
        if context.chosen.get(op, number) != number:
            continue
        attempt = emitter.fork()
        output = form(attempt, inputs[0])
        cost = context.costs.total(attempt.ops)
        if cost < best_cost:
            best, best_cost, best_number, result = attempt, cost, number, output
    context.chosen[op] = best_number
    emitter.join(best)
    return [result]


def _depthwise(emitter: Emitter, op: Op, inputs: list[Parts], context: Context) -> Parts:
    filters, bias, stride = _checked(op)
    multiplier = filters.shape[3] // op.inputs[0].shape[3]
    bounds = np.cumsum([multiplier * part.shape[3] for part in inputs[0]])[:-1]
    pieces = zip(
        inputs[0], np.split(filters[0], bounds, axis=2), np.split(bias, bounds), strict=True
    )
    return [
        depthwise(
            emitter, part, kernel, own_bias, activation=op.activation, stride=stride, pads=op.pads
        )
        for part, kernel, own_bias in pieces
    ]


def _checked(op: Op) -> tuple[np.ndarray, np.ndarray, int]:
    """Return filters, bias and stride of a convolution that can be lowered."""
    if op.pads is None or op.inputs[1].dtype != "FLOAT32":
        raise NotLoweredError(f"{op.code} with filters that are not constants of float32")
    if (op.options.dilationHFactor, op.options.dilationWFactor) != (1, 1):
        raise NotLoweredError(f"{op.code} that is dilated")
    filters = op.inputs[1].values
    stride = _stride(op, filters.shape[1:3], op.pads)
    bias = op.inputs[2] if len(op.inputs) > 2 else None
    outputs = op.output.shape[3]
    values = np.zeros(outputs, np.float32) if bias is None else bias.values
    if values is None:
        raise NotLoweredError(f"{op.code} with a bias that is computed")
    return filters, values.reshape(outputs), stride


def _stride(op: Op, window: tuple[int, int], pads: Pads) -> int:
    """Return the stride of windows that sparse mode can have: one for each value, or every second.

    Maps inside cannot be cropped, so windows that leave out the border have no form.
    """
    stride, other = op.strides
    if stride != other or stride not in (1, 2):
        raise NotLoweredError(f"{op.code} of strides {op.strides}")
    axes = zip(op.inputs[0].shape[1:3], window, pads, strict=True)
    if any(windows(size, k, stride, around) != -(-size // stride) for size, k, around in axes):
        raise NotLoweredError(f"{op.code} whose windows leave out the border of the map")
    return stride


def _pooling_windows(op: Op) -> tuple[list[int], list[int], int, Pads]:
    """Return offsets over rows and columns, stride and padding of a pooling."""
    window = (op.options.filterHeight, op.options.filterWidth)
    pads = NO_PADS
    if op.options.padding == SAME:
        axes = zip(op.inputs[0].shape[1:3], window, op.strides, strict=True)
        pads = tuple(same_padding(*axis) for axis in axes)  # type: ignore[assignment]
    stride = _stride(op, window, pads)
    rows, columns = (
        [place - before for place in range(size)]
        for size, (before, _) in zip(window, pads, strict=True)
    )
    return rows, columns, stride, pads


def _max_pool(emitter: Emitter, op: Op, inputs: list[Parts], context: Context) -> Parts:
    rows, columns, stride, pads = _pooling_windows(op)
    _no_activation(op)
    may_lose = pads != NO_PADS and op.inputs[0] not in context.nonnegative
    outside = context.lowest if may_lose else 0.0
    return [maximum(emitter, part, rows, columns, stride, outside=outside) for part in inputs[0]]


def _average_pool(emitter: Emitter, op: Op, inputs: list[Parts], context: Context) -> Parts:
    rows, columns, stride, pads = _pooling_windows(op)
    if max(map(abs, (*rows, *columns))) > 2:
        raise NotLoweredError("AVERAGE_POOL_2D of large windows")
    if max(*pads[0], *pads[1]) > 1 or min(op.inputs[0].shape[1:3]) < 2:
        raise NotLoweredError("AVERAGE_POOL_2D whose windows differ by more than a row or column")
    _no_activation(op)
    padded = pads != NO_PADS
    return [average(emitter, part, rows, columns, stride, padded=padded) for part in inputs[0]]


def _no_activation(op: Op) -> None:
    if op.activation:
        raise NotLoweredError(f"{op.code} with a fused activation")


def _concatenation(emitter: Emitter, op: Op, inputs: list[Parts], context: Context) -> Parts:
    if op.options.axis not in (3, -1) or len(inputs) != len(op.inputs):
        raise NotLoweredError("CONCATENATION along another axis, or with constants")
    _no_activation(op)
    return [part for parts in inputs for part in parts]


def _unary(emitter: Emitter, op: Op, inputs: list[Parts], context: Context) -> Parts:
    return [emitter.emit(op.code, [part], part.shape, op.options) for part in inputs[0]]


def _resize(emitter: Emitter, op: Op, inputs: list[Parts], context: Context) -> Parts:
    if min(op.inputs[0].shape[1:3]) < 2 or not op.inputs[1].is_constant:
        raise NotLoweredError("RESIZE_BILINEAR of one row or column")
    return [
        emitter.emit(
            op.code, [part, op.inputs[1]], (*op.output.shape[:3], part.shape[3]), op.options
        )
        for part in inputs[0]
    ]


def _binary(emitter: Emitter, op: Op, inputs: list[Parts], context: Context) -> Parts:
    first, second = op.inputs
    if second.is_constant:
        raise NotLoweredError(f"{op.code} with a constant that is a map")
    if not first.is_constant:
        a, b = aligned(emitter, inputs)
        return [
            emitter.emit(op.code, [x, y], np.broadcast_shapes(x.shape, y.shape), op.options)
            for x, y in zip(a, b, strict=True)
        ]
    if first.shape[:3] != (1, 1, 1):
        raise NotLoweredError(f"{op.code} with a constant that is a map")
    values = np.broadcast_to(first.values, (1, 1, 1, second.shape[3]))
    bounds = np.cumsum([part.shape[3] for part in inputs[0]])[:-1]
    return [
        emitter.emit(
            op.code,
            [emitter.constant(own if first.values.size > 1 else first.values), part],
            part.shape,
            op.options,
        )
        for own, part in zip(np.split(values, bounds, axis=3), inputs[0], strict=True)
    ]


def aligned(emitter: Emitter, operands: list[Parts]) -> list[Parts]:
    """Return operands in parts of the same channels; each is one part if they are split apart."""
    splits = {tuple(part.shape[3] for part in parts) for parts in operands}
    if len(splits) == 1:
        return operands
    return [[gathered(emitter, parts)] for parts in operands]


def gathered(emitter: Emitter, parts: Parts) -> Tensor:
    """Return one map of several parts: a 0/1 convolution puts each into its place, or places."""
    if len(parts) == 1:
        return parts[0]
    bounds = np.cumsum([0, *(part.shape[3] for part in parts)])
    identity = np.eye(bounds[-1], dtype=np.float32)
    places: dict[Tensor, np.ndarray] = {}
    for part, first, last in zip(parts, bounds[:-1], bounds[1:], strict=True):
        places[part] = places.get(part, 0) + identity[:, first:last]
    return emitter.total([emitter.pointwise(part, place) for part, place in places.items()])


def _mean(emitter: Emitter, op: Op, inputs: list[Parts], context: Context) -> Parts:
    if not is_global_mean(op):
        raise NotLoweredError("MEAN over other axes than height and width")
    outputs = [Tensor(op.output.name, (part.shape[0], 1, 1, part.shape[3])) for part in inputs[0]]
    emitter.ops += [
        mean(part, output, keep_axes=True) for part, output in zip(inputs[0], outputs, strict=True)
    ]
    return outputs


def _depth_to_space(emitter: Emitter, op: Op, inputs: list[Parts], context: Context) -> Parts:
    """What it returns is outside: it is a way out."""
    x = gathered(emitter, inputs[0])
    return [emitter.emit(op.code, [x], op.output.shape, op.options)]


_RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _unary),
    "ADD": _binary,
    "AVERAGE_POOL_2D": _average_pool,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEPTH_TO_SPACE": _depth_to_space,
    "MAX_POOL_2D": _max_pool,
    "MEAN": _mean,
    "MUL": _binary,
    "RESIZE_BILINEAR": _resize,
}

"""Small exact rewrites that leave fewer forms for the rest of the compiler to know.

| found | becomes |
|---|---|
| MEAN over space, then RESHAPE to a 1x1 map | MEAN that keeps its axes |
| AVERAGE_POOL_2D over the whole map | MEAN that keeps its axes |
| pooling of windows of one value | DEPTHWISE_CONV_2D, which XNNPACK runs |
| CONCATENATION of more than four | several, which XNNPACK runs |
| STRIDED_SLICE of every value of a range | SLICE, which XNNPACK runs |
| SUB of a constant, DIV by a constant | ADD, MUL |
| TRANSPOSE_CONV, RESIZE_NEAREST_NEIGHBOR, RESHAPE and TILE like it | DEPTH_TO_SPACE |
| a constant of fewer than four axes, or second, in ADD and MUL | one of four axes, first |

XNNPACK refuses a constant as second operand in sparse mode, and one that does not have four axes.
"""

from __future__ import annotations

import numpy as np

from tfprune.export.sparse_runtime.compiler.emitter import concatenations, mean
from tfprune.export.sparse_runtime.compiler.program import NO_PADS, Op, Program, Tensor
from tfprune.export.sparse_runtime.compiler.reading import SAME
from tfprune.export.sparse_runtime.compiler.upsampling import (
    merge_tiles,
    upsampling_as_depth_to_space,
)


def canonicalize(program: Program) -> None:
    """Rewrite a program in place."""
    merge_tiles(program)
    program.rewrite(upsampling_as_depth_to_space)
    _keep_axes_of_means(program)
    program.rewrite(lambda op: [_pooling_as_mean(op)])
    program.rewrite(lambda op: [_picking_as_depthwise(op)])
    program.rewrite(lambda op: [_cut_as_slice(op)])
    program.rewrite(_in_small_concatenations)
    program.rewrite(lambda op: [_with_settled_constant(op)])


def is_global_mean(op: Op) -> bool:
    """Whether an operator is a mean over height and width."""
    if op.code != "MEAN" or not op.inputs[0].is_map or op.inputs[1].values is None:
        return False
    return sorted(int(axis) % 4 for axis in op.inputs[1].values.flat) == [1, 2]


def _keep_axes_of_means(program: Program) -> None:
    consumers = program.consumers()
    merged: dict[Op, list[Op]] = {}
    for op in program.ops:
        readers = consumers.get(op.output, [])
        if not is_global_mean(op) or op.options.keepDims or op.output in program.outputs:
            continue
        batch, channels = op.output.shape
        if readers and all(
            reader.code == "RESHAPE" and reader.output.shape == (batch, 1, 1, channels)
            for reader in readers
        ):
            first, *others = readers
            merged[op] = [mean(op.inputs[0], first.output, keep_axes=True)]
            merged.update({reader: [] for reader in readers})
            program.redirect({other.output: first.output for other in others})
    program.rewrite(lambda op: merged.get(op, [op]))


def _pooling_as_mean(op: Op) -> Op:
    if op.code != "AVERAGE_POOL_2D" or not op.inputs[0].is_map or op.activation:
        return op
    whole = (op.options.filterHeight, op.options.filterWidth) == op.inputs[0].shape[1:3]
    # "Same" pads the window of a larger stride than 1 not at all, but may that of stride 1.
    if not whole or op.output.shape[1:3] != (1, 1) or _pads(op):
        return op
    return mean(op.inputs[0], op.output, keep_axes=True)


def _pads(op: Op) -> bool:
    sizes = zip(op.inputs[0].shape[1:3], op.strides, strict=True)
    return op.options.padding == SAME and any(stride < size for size, stride in sizes)


def _picking_as_depthwise(op: Op) -> Op:
    from ai_edge_litert import schema_py_generated as schema

    if op.code not in ("MAX_POOL_2D", "AVERAGE_POOL_2D") or not op.inputs[0].is_map:
        return op
    if (op.options.filterHeight, op.options.filterWidth) != (1, 1):
        return op
    channels = op.inputs[0].shape[3]
    rows, columns = op.strides
    constants = [np.ones((1, 1, 1, channels), np.float32), np.zeros(channels, np.float32)]
    inputs = [op.inputs[0], *(Tensor.constant("picked", values) for values in constants)]
    options = schema.DepthwiseConv2DOptionsT(1, columns, rows, 1, op.activation, 1, 1)
    return Op("DEPTHWISE_CONV_2D", inputs, op.outputs, options, pads=NO_PADS)


def _in_small_concatenations(op: Op) -> list[Op]:
    if op.code != "CONCATENATION" or not op.output.is_map or op.activation:
        return [op]
    return concatenations(op.inputs, op.output, op.options.axis)


def _cut_as_slice(op: Op) -> Op:
    from ai_edge_litert import schema_py_generated as schema

    if op.code != "STRIDED_SLICE" or any(x.values is None for x in op.inputs[1:]):
        return op
    x, first, _, strides = op.inputs
    options = op.options
    masks = (options.ellipsisMask, options.newAxisMask, options.shrinkAxisMask)
    if any(masks) or (strides.values != 1).any() or len(x.shape) != first.values.size:
        return op
    begin = [
        0 if options.beginMask >> axis & 1 else int(start) % size
        for axis, (start, size) in enumerate(zip(first.values.flat, x.shape, strict=True))
    ]
    limits = [Tensor.constant("slice", np.array(n, np.int32)) for n in (begin, op.output.shape)]
    return Op("SLICE", [x, *limits], op.outputs, schema.SliceOptionsT())


def _with_settled_constant(op: Op) -> Op:
    """Return an ADD or MUL with the constant in the form that sparse mode takes, or the operator.

    It may have the channels or one value, for all else is refused in sparse mode anyway.
    """
    from ai_edge_litert import schema_py_generated as schema

    if op.code not in ("ADD", "SUB", "MUL", "DIV") or not op.output.is_map:
        return op
    first, second = op.inputs
    if first.is_constant == second.is_constant:
        return op
    constant, other = (first, second) if first.is_constant else (second, first)
    if constant.is_constant and constant.dtype != "FLOAT32":
        return op
    if op.code in ("SUB", "DIV") and first.is_constant:
        return op
    values = constant.values
    if other.shape != op.output.shape or values.shape[-1:] not in ((), (values.size,)):
        return op
    options = op.options
    if op.code == "SUB":
        values, options = -values, schema.AddOptionsT(op.activation)
    if op.code == "DIV":
        # A power of two is exact; else the rounding of one division more.
        values, options = 1 / values, schema.MulOptionsT(op.activation)
    code = {"SUB": "ADD", "DIV": "MUL"}.get(op.code, op.code)
    settled = Tensor.constant(
        constant.name, np.reshape(values, (1, 1, 1, values.size)).astype(np.float32)
    )
    return Op(code, [settled, other], op.outputs, options)

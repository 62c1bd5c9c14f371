"""Upsampling as DEPTH_TO_SPACE, which sparse mode has: it is one of the two ways out of it.

A transposed convolution of stride s is an ordinary one with s * s times the outputs, each group of
which is one of the s * s places of the upsampled values, and DEPTH_TO_SPACE puts them there.
Copying each value s * s times is the same with no convolution at all. XNNPACK runs neither
RESIZE_NEAREST_NEIGHBOR nor TILE, which the converter makes of Keras's `UpSampling2D`, and a network
in two pieces runs no cluster across both.
"""

from __future__ import annotations

import numpy as np

from tfprune.export.sparse_runtime.compiler.program import Op, Program, Tensor


def upsampling_as_depth_to_space(op: Op) -> list[Op]:
    """Return the operators that compute an upsampling, or the operator if it is none."""
    if op.code == "RESIZE_NEAREST_NEIGHBOR":
        return _resized(op)
    if op.code == "TRANSPOSE_CONV":
        return _transposed(op)
    return [op]


def merge_tiles(program: Program) -> None:
    """Replace chains of RESHAPE and TILE that copy each value of a map, in place.

    They are recognized by what they do to numbered values.
    """
    producers, consumers = program.producers(), program.consumers()
    merged: dict[Op, list[Op]] = {}
    for op in program.ops:
        if op.code != "RESHAPE" or not op.output.is_map:
            continue
        chain = [op]
        while (before := producers.get(chain[0].inputs[0])) is not None:
            alone = len(consumers[before.output]) == 1 and before.output not in program.outputs
            if before.code not in ("RESHAPE", "TILE") or not alone:
                break
            chain.insert(0, before)
        x = chain[0].inputs[0]
        stride = _factor(x, op.output)
        if stride is not None and _copies(chain, x, stride):
            merged.update({link: [] for link in chain})
            merged[op] = _copied(x, op.output, stride)
    program.rewrite(lambda op: merged.get(op, [op]))


def _copies(chain: list[Op], x: Tensor, stride: int) -> bool:
    """Whether a chain of RESHAPE and TILE writes each value of a map stride times to both sides."""
    values = numbers = np.arange(np.prod(x.shape)).reshape(x.shape)
    for op in chain:
        if op.code == "TILE":
            if op.inputs[1].values is None:
                return False
            values = np.tile(values, op.inputs[1].values)
        else:
            values = values.reshape(op.output.shape)
    return np.array_equal(values, numbers.repeat(stride, axis=1).repeat(stride, axis=2))


def _resized(op: Op) -> list[Op]:
    stride = _factor(op.inputs[0], op.output)
    if stride is None or op.options.alignCorners:
        return [op]
    return _copied(op.inputs[0], op.output, stride)


def _copied(x: Tensor, output: Tensor, stride: int) -> list[Op]:
    from ai_edge_litert import schema_py_generated as schema

    copies = Tensor(f"{output.name}/copies", (*x.shape[:3], x.shape[3] * stride**2))
    concatenation = schema.ConcatenationOptionsT(3, 0)
    return [
        Op("CONCATENATION", [x] * stride**2, [copies], concatenation),
        _depth_to_space(copies, output, stride),
    ]


def _transposed(op: Op) -> list[Op]:
    from ai_edge_litert import schema_py_generated as schema

    _, weights, x, *rest = op.inputs
    stride = _factor(x, op.output)
    bias = rest[0] if rest else None
    constants = [tensor for tensor in (weights, bias) if tensor is not None]
    if op.strides != (stride, stride) or not all(t.is_constant for t in constants):
        return [op]
    filters, pads = _one_filter_per_place(weights.values, stride)
    if filters is None:
        return [op]
    outputs = weights.shape[0]
    values = np.zeros(outputs, np.float32) if bias is None else bias.values.reshape(outputs)
    places = Tensor(f"{op.output.name}/places", (*x.shape[:3], outputs * stride**2))
    name = weights.name
    inputs = [
        x,
        Tensor.constant(name, filters),
        Tensor.constant(f"{name}/bias", np.tile(values, stride**2)),
    ]
    options = schema.Conv2DOptionsT(1, 1, 1, op.activation, 1, 1)
    return [
        Op("CONV_2D", inputs, [places], options, pads=pads),
        _depth_to_space(places, op.output, stride),
    ]


def _factor(x: Tensor, output: Tensor) -> int | None:
    """Return by how much both axes grow, if it is a whole number and more than 1."""
    if not (x.is_map and output.is_map):
        return None
    factor = output.shape[1] // x.shape[1]
    grown = (factor * x.shape[1], factor * x.shape[2])
    return factor if factor > 1 and output.shape[1:3] == grown else None


def _one_filter_per_place(filters: np.ndarray, stride: int) -> tuple:
    """Return the filters (places x outputs, rows, columns, inputs) of an ordinary convolution.

    Output s * q + a of a transposed convolution reads input q + d with tap t = a + p - s * d.
    """
    outputs, *window, inputs = filters.shape
    if min(window) < stride:
        return None, None
    taps = []
    for size in window:
        ahead = (size - stride) // 2  # As "same" padding has it, or none of a window of s.
        taps.append(
            [
                [place + ahead - stride * d for place in range(stride)]
                for d in range(-((size - 1) // stride + 1), (size - 1) // stride + 2)
            ]
        )
    used = [
        [any(0 <= tap < size for tap in row) for row in axis]
        for axis, size in zip(taps, window, strict=True)
    ]
    first = [flags.index(True) for flags in used]
    last = [len(flags) - flags[::-1].index(True) for flags in used]
    rows, columns = (axis[a:b] for axis, a, b in zip(taps, first, last, strict=True))
    result = np.zeros((stride, stride, outputs, len(rows), len(columns), inputs), np.float32)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            for a in range(stride):
                for b in range(stride):
                    if 0 <= row[a] < window[0] and 0 <= column[b] < window[1]:
                        result[a, b, :, i, j] = filters[:, row[a], column[b]]
    middles = [len(axis) // 2 for axis in taps]  # Where d is 0.
    pads = tuple(
        (middle - a, b - 1 - middle) for middle, a, b in zip(middles, first, last, strict=True)
    )
    if any(pad < 0 for pair in pads for pad in pair):
        return None, None
    return result.reshape(-1, *result.shape[3:]), pads


def _depth_to_space(x: Tensor, output: Tensor, stride: int) -> Op:
    from ai_edge_litert import schema_py_generated as schema

    return Op("DEPTH_TO_SPACE", [x], [output], schema.DepthToSpaceOptionsT(stride))

"""The borders of sparse mode: how maps get in and out of it anywhere in a network.

XNNPACK knows one way in, a 3x3 convolution of stride 2 over three channels, and two ways out, a
mean over space and DEPTH_TO_SPACE. Both move values only here:

- `enter`: twelve channels at a time become an image of twice the size and three channels, which
  that convolution, with one-hot filters, turns into twelve channels again.
- `leave`: DEPTH_TO_SPACE, and SPACE_TO_DEPTH back, which is outside already.
"""

from __future__ import annotations

import copy

import numpy as np

from tfprune.export.sparse_runtime.compiler.emitter import Emitter, concatenations
from tfprune.export.sparse_runtime.compiler.program import Op, Tensor

_BLOCK = 2
_IMAGE = 3
_SLICE = _IMAGE * _BLOCK**2


def enter(emitter: Emitter, x: Tensor) -> list[Tensor]:
    """Bring a map into sparse mode."""
    batch, rows, columns, channels = x.shape
    slices = -(-channels // _SLICE)
    missing = slices * _SLICE - channels
    if missing:
        shape = (batch, rows, columns, channels + missing)
        x = _outside(emitter, "PAD", [x, _zeros_behind(emitter, missing)], shape, "PadOptionsT")
    entered = []
    for number in range(slices):
        piece = x
        if slices > 1:
            piece = _channels(emitter, x, number * _SLICE, _SLICE)
        shape = (batch, _BLOCK * rows, _BLOCK * columns, _IMAGE)
        image = _outside(emitter, "DEPTH_TO_SPACE", [piece], shape, "DepthToSpaceOptionsT", _BLOCK)
        if slices == 1:
            return [_stem(emitter, image, channels)]
        first = number * _SLICE
        count = min(_SLICE, channels - first)
        place = np.zeros((channels, _SLICE), np.float32)
        place[first + np.arange(count), np.arange(count)] = 1
        entered.append(emitter.pointwise(_stem(emitter, image, _SLICE), place))
    return [emitter.total(entered)]


def leave(emitter: Emitter, parts: list[Tensor], output: Tensor) -> None:
    """Bring a map that is held in parts out of sparse mode, as a tensor that exists already."""
    pieces = []
    for part in parts:
        batch, rows, columns, channels = part.shape
        padded = -(-channels // _BLOCK**2) * _BLOCK**2
        x = part
        if padded > channels:
            x = emitter.pointwise(part, np.eye(padded, channels, dtype=np.float32))
        image = (batch, _BLOCK * rows, _BLOCK * columns, padded // _BLOCK**2)
        x = _outside(emitter, "DEPTH_TO_SPACE", [x], image, "DepthToSpaceOptionsT", _BLOCK)
        emitter.ops[-1].outside = False
        shape = (batch, rows, columns, padded)
        x = _outside(emitter, "SPACE_TO_DEPTH", [x], shape, "SpaceToDepthOptionsT", _BLOCK)
        if padded > channels:
            x = _channels(emitter, x, 0, channels)
        pieces.append(x)
    joined(emitter, pieces, output)


def joined(emitter: Emitter, pieces: list[Tensor], output: Tensor) -> None:
    """Concatenate pieces along the last axis, outside of sparse mode, as an existing tensor."""
    if len(pieces) == 1:
        emitter.ops[-1].outputs = [output]
        return
    ops = concatenations(pieces, output, len(output.shape) - 1)
    for op in ops:
        op.outside = True
    emitter.ops += ops


def reshaped(emitter: Emitter, x: Tensor, output: Tensor) -> None:
    """Reshape outside of sparse mode, into an existing tensor."""
    shape = np.array(output.shape, np.int32)
    _outside(emitter, "RESHAPE", [x, emitter.constant(shape)], shape, "ReshapeOptionsT", shape)
    emitter.ops[-1].outputs = [output]


def keep_outside(op: Op) -> Op:
    """Return a convolution in a form that no version of the runtime takes for part of a cluster.

    A 1x1 window is the same whatever its dilation. And a stem, with which a cluster would start, is
    the same with zeros behind the map that its last window does not reach.
    """
    kept = copy.copy(op)
    if op.inputs[1].shape[1:3] == (1, 1):
        kept.options = copy.copy(op.options)
        kept.options.dilationHFactor = kept.options.dilationWFactor = 2
    else:
        kept.pads = tuple(  # type: ignore[assignment]
            (before, 0 if size % 2 == 0 else 2)
            for size, (before, _) in zip(op.inputs[0].shape[1:3], op.pads, strict=True)
        )
    return kept


def _stem(emitter: Emitter, image: Tensor, channels: int) -> Tensor:
    from ai_edge_litert import schema_py_generated as schema

    filters = np.zeros((channels, 3, 3, _IMAGE), np.float32)
    for channel in range(channels):
        place, color = divmod(channel, _IMAGE)
        row, column = divmod(place, _BLOCK)
        filters[channel, 1 + row, 1 + column, color] = 1
    batch, rows, columns, _ = image.shape
    bias = emitter.constant(np.zeros(channels, np.float32))
    return emitter.emit(
        "CONV_2D",
        [image, emitter.constant(filters), bias],
        (batch, rows // _BLOCK, columns // _BLOCK, channels),
        schema.Conv2DOptionsT(1, _BLOCK, _BLOCK, 0, 1, 1),
        pads=((1, 1), (1, 1)),
    )


def _channels(emitter: Emitter, x: Tensor, first: int, count: int) -> Tensor:
    begin = emitter.constant(np.array([0, 0, 0, first], np.int32))
    size = np.array([*x.shape[:3], count], np.int32)
    return _outside(emitter, "SLICE", [x, begin, emitter.constant(size)], size, "SliceOptionsT")


def _zeros_behind(emitter: Emitter, count: int) -> Tensor:
    return emitter.constant(np.array([[0, 0], [0, 0], [0, 0], [0, count]], np.int32))


def _outside(emitter: Emitter, code: str, inputs: list, shape, options: str, *arguments) -> Tensor:
    from ai_edge_litert import schema_py_generated as schema

    built = getattr(schema, options)(*arguments)
    return emitter.emit(code, inputs, shape, built, outside=True)

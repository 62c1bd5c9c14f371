"""The half-turn: a network rotated by 180 degrees computes the same, padded on the other side.

Keras's mobile models pad their stride-2 convolutions with 0 before and 1 after, and sparse mode
wants 1 on both sides. With every kernel flipped on both spatial axes and the images flipped once,
each of those paddings is 1 before and 0 after; and on an even size another zero after changes
nothing, for no window reaches it.

Each tensor is turned or not; an operator that cannot work on turned maps gets them turned back.
"""

from __future__ import annotations

import copy

import numpy as np

from tfprune.export.sparse_runtime.compiler.canonical import is_global_mean
from tfprune.export.sparse_runtime.compiler.program import Op, Program, Tensor, windows
from tfprune.export.sparse_runtime.compiler.reading import CONVOLUTIONS, SAME
from tfprune.export.sparse_runtime.rules import UNARY

_ELEMENTWISE = ("ADD", "SUB", "MUL", "DIV")
_POOLINGS = ("MAX_POOL_2D", "AVERAGE_POOL_2D")


def turned(program: Program) -> Program:
    """Return a program that computes the same on turned maps; the given one is not changed."""
    other = copy.copy(program)
    state = _State()
    for op in program.ops:
        new = _turned(op)
        if new is None:
            new = copy.copy(op)
            new.inputs = [x if x is None else state.upright(x) for x in op.inputs]
            state.ops.append(new)
            continue
        new.inputs = [x if x is None else state.turned(x) for x in new.inputs]
        if not is_global_mean(op) and op.output.shape[1:3] != (1, 1):
            flipped = Tensor(f"{op.output.name}/turned", op.output.shape)
            state.to_turned[op.output] = flipped
            new.outputs = [flipped]
        state.ops.append(new)
    for tensor in program.outputs:
        state.upright(tensor)
    other.ops = state.ops
    other.drop_unused()
    return other


class _State:
    """Which tensors are there in which position."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.to_turned: dict[Tensor, Tensor] = {}
        self.made_upright: set[Tensor] = set()

    def turned(self, tensor: Tensor) -> Tensor:
        """Return a tensor in the turned position."""
        if tensor.is_constant or not tensor.is_map or tensor.shape[1:3] == (1, 1):
            return tensor
        if tensor not in self.to_turned:
            self.to_turned[tensor] = Tensor(f"{tensor.name}/turned", tensor.shape)
            self.made_upright.add(tensor)
            self.ops.append(_reversal(tensor, self.to_turned[tensor]))
        return self.to_turned[tensor]

    def upright(self, tensor: Tensor) -> Tensor:
        """Return a tensor in the position that it had."""
        if tensor in self.to_turned and tensor not in self.made_upright:
            self.ops.append(self.back(tensor))
        return tensor

    def back(self, tensor: Tensor) -> Op:
        """Return the operator that turns a tensor back."""
        self.made_upright.add(tensor)
        return _reversal(self.to_turned[tensor], tensor)


def _reversal(x: Tensor, output: Tensor) -> Op:
    from ai_edge_litert import schema_py_generated as schema

    axes = Tensor.constant("turned_axes", np.array([1, 2], np.int32))
    return Op("REVERSE_V2", [x, axes], [output], schema.ReverseV2OptionsT())


def _turned(op: Op) -> Op | None:
    """Return a copy of an operator that works on turned maps, or None if there is none."""
    if not any(x.is_map and x.shape[1:3] != (1, 1) for x in op.activations):
        return None
    if is_global_mean(op):
        return copy.copy(op)
    if not all(tensor.is_map for tensor in (*op.activations, *op.outputs)):
        return None
    if op.code in CONVOLUTIONS:
        return _turned_convolution(op)
    sees_no_turn = (
        op.code in UNARY
        or (op.code == "CONCATENATION" and op.options.axis in (3, -1))
        or (op.code in _POOLINGS and _fits_evenly(op))
        or (op.code in _ELEMENTWISE and not any(map(_is_spatial, op.inputs)))
    )
    return copy.copy(op) if sees_no_turn else None


def _is_spatial(x: Tensor) -> bool:
    """Whether a tensor is a constant with other values in other places."""
    return x.is_constant and any(size != 1 for size in x.shape[-3:-1])


def _turned_convolution(op: Op) -> Op | None:
    if op.pads is None or (op.options.dilationHFactor, op.options.dilationWFactor) != (1, 1):
        return None
    kernel = op.inputs[1]
    axes = zip(op.inputs[0].shape[1:3], kernel.shape[1:3], op.strides, op.pads, strict=True)
    pads = [_turned_padding(*axis) for axis in axes]
    if None in pads:
        return None
    new = copy.copy(op)
    new.pads = tuple(pads)
    flipped = Tensor.constant(kernel.name, kernel.values[:, ::-1, ::-1])
    new.inputs = [op.inputs[0], flipped, *op.inputs[2:]]
    return new


def _turned_padding(
    size: int, kernel: int, stride: int, pads: tuple[int, int]
) -> tuple[int, int] | None:
    """Return the padding from the other side, evened out where no window sees the difference.

    None if the last window ends before the map does: turned, the map would have to be cropped.
    """
    before, after = pads
    unseen = (size + before + after - kernel) % stride
    if unseen > after:
        return None
    count = windows(size, kernel, stride, pads)
    turned_before = after - unseen
    least = max((count - 1) * stride + kernel - size - turned_before, 0)
    even = windows(size, kernel, stride, (turned_before, turned_before)) == count
    return turned_before, turned_before if even and turned_before >= least else least


def _fits_evenly(op: Op) -> bool:
    """Whether the windows of a pooling lie the same from both sides."""
    kernel = (op.options.filterHeight, op.options.filterWidth)
    for size, window, stride in zip(op.inputs[0].shape[1:3], kernel, op.strides, strict=True):
        if op.options.padding == SAME:
            padded = (-(-size // stride) - 1) * stride + window - size
            if padded < 0 or padded % 2:
                return False
        elif (size - window) % stride:
            return False
    return True

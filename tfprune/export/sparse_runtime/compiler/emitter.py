"""The few operators that lowered programs are made of, each as one call.

Everything that XNNPACK runs sparse is said with these: a sparse 1x1 convolution, a depthwise
convolution of 3x3 or 5x5, ADD, MUL and functions of one operand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfprune.export.sparse_runtime.compiler.program import NO_PADS, Op, Tensor
from tfprune.export.sparse_runtime.delegation import MAX_CONCATENATED

NONE, RELU = 0, 1
CLAMPS = (0, 1, 2, 3)  # Fused activations that are a clamp: none, RELU, RELU_N1_TO_1, RELU6.
# A 3x3 window sees so many values to each side; two of them cost less than one of 5x5.
_REACH = 1


class Emitter:
    """Collects operators.

    Args:
        taps: the one-hot depthwise convolutions so far, to be used again: two layers that read the
            same map often need the same shifts of it.
    """

    def __init__(self, taps: dict[tuple, Tensor] | None = None):
        self.ops: list[Op] = []
        self.taps: dict[tuple, Tensor] = {} if taps is None else taps
        self.name = ""

    def fork(self) -> Emitter:
        """Return an emitter to try something with."""
        other = Emitter(dict(self.taps))
        other.name = self.name
        return other

    def join(self, other: Emitter) -> None:
        """Take over what was tried."""
        self.ops += other.ops
        self.taps = other.taps

    def emit(
        self, code: str, inputs: list[Tensor | None], shape: tuple[int, ...], options: Any, **fields
    ) -> Tensor:
        """Add an operator and return its output."""
        output = Tensor(f"{self.name}/{code.lower()}", tuple(map(int, shape)))
        self.ops.append(Op(code, inputs, [output], options, **fields))
        return output

    def constant(self, values: Any) -> Tensor:
        """Make a constant."""
        return Tensor.constant(f"{self.name}/constant", np.asarray(values))

    def pointwise(
        self,
        x: Tensor,
        filters: np.ndarray,
        bias: np.ndarray | None = None,
        activation: int = NONE,
    ) -> Tensor:
        """Add a sparse 1x1 convolution; filters: array (outputs, inputs)."""
        from ai_edge_litert import schema_py_generated as schema

        outputs, inputs = filters.shape
        weights = self.constant(filters.astype(np.float32).reshape(outputs, 1, 1, inputs))
        bias = self.constant(np.zeros(outputs, np.float32) if bias is None else bias)
        options = schema.Conv2DOptionsT(1, 1, 1, activation, 1, 1)
        return self.emit(
            "CONV_2D",
            [x, weights, bias],
            (*x.shape[:3], outputs),
            options,
            pads=NO_PADS,
            sparse=True,
        )

    def depthwise(
        self,
        x: Tensor,
        kernel: np.ndarray,
        stride: int = 1,
        bias: np.ndarray | None = None,
        activation: int = NONE,
    ) -> Tensor:
        """Add a depthwise convolution that is padded evenly; kernel: array (3 or 5, same, C)."""
        from ai_edge_litert import schema_py_generated as schema

        size, _, channels = kernel.shape
        batch, rows, columns, _ = x.shape
        bias = np.zeros(channels, np.float32) if bias is None else bias
        half = size // 2
        return self.emit(
            "DEPTHWISE_CONV_2D",
            [x, self.constant(kernel[np.newaxis]), self.constant(bias)],
            (batch, -(-rows // stride), -(-columns // stride), channels),
            schema.DepthwiseConv2DOptionsT(1, stride, stride, 1, activation, 1, 1),
            pads=((half, half), (half, half)),
        )

    def add(self, a: Tensor, b: Tensor, activation: int = NONE) -> Tensor:
        """Add an ADD; a constant comes first."""
        from ai_edge_litert import schema_py_generated as schema

        shape = np.broadcast_shapes(a.shape, b.shape)
        return self.emit("ADD", [a, b], shape, schema.AddOptionsT(activation))

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        """Add a MUL; a constant comes first."""
        from ai_edge_litert import schema_py_generated as schema

        shape = np.broadcast_shapes(a.shape, b.shape)
        return self.emit("MUL", [a, b], shape, schema.MulOptionsT(NONE))

    def total(self, summands: list[Tensor], activation: int = NONE) -> Tensor:
        """Add up tensors; a single one is returned as it is."""
        result, *others = summands
        for number, other in enumerate(others, start=1):
            last = number == len(others)
            result = self.add(result, other, activation if last else NONE)
        return result

    def scale(self, x: Tensor, factor: float) -> Tensor:
        """Add a MUL by one number."""
        return self.multiply(self.constant(np.full((1, 1, 1, 1), factor, np.float32)), x)

    def tap(self, x: Tensor, row: int, column: int, stride: int = 1, sign: int = 1) -> Tensor:
        """Return the map y[i, j] = sign * x[stride * i + row, stride * j + column], zero outside.

        It is a depthwise convolution with a kernel that is zero but for one value; further away
        than that reaches, after another. Both shift to the same side, so that the first
        drops nothing that the second would bring back.
        """
        if (row, column, stride, sign) == (0, 0, 1, 1):
            return x
        key = (x, row, column, stride, sign)
        if key not in self.taps:
            near = [int(np.clip(offset, -_REACH, _REACH)) for offset in (row, column)]
            moved = self.tap(x, row - near[0], column - near[1])
            kernel = np.zeros((3, 3, x.shape[3]), np.float32)
            kernel[1 + near[0], 1 + near[1]] = sign
            self.taps[key] = self.depthwise(moved, kernel, stride)
        return self.taps[key]


def mean(x: Tensor, output: Tensor, keep_axes: bool) -> Op:
    """Return a mean over height and width."""
    from ai_edge_litert import schema_py_generated as schema

    axes = Tensor.constant("spatial_axes", np.array([1, 2], np.int32))
    return Op("MEAN", [x, axes], [output], schema.ReducerOptionsT(keep_axes))


def concatenations(pieces: list[Tensor], output: Tensor, axis: int) -> list[Op]:
    """Return operators that concatenate tensors, none of them more than XNNPACK can."""
    from ai_edge_litert import schema_py_generated as schema

    ops = []
    while len(pieces) > MAX_CONCATENATED:
        first, pieces = pieces[:MAX_CONCATENATED], pieces[MAX_CONCATENATED:]
        shape = list(output.shape)
        shape[axis] = sum(piece.shape[axis] for piece in first)
        joined = Tensor(f"{output.name}/first", tuple(shape))
        ops.append(Op("CONCATENATION", first, [joined], schema.ConcatenationOptionsT(axis, 0)))
        pieces = [joined, *pieces]
    return [*ops, Op("CONCATENATION", pieces, [output], schema.ConcatenationOptionsT(axis, 0))]

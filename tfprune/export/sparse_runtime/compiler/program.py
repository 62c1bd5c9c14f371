"""A `.tflite` file as a program that can be edited: tensors, operators in order, nothing else.

Reading has already undone what is only storage: weights are dense float32 arrays, whether the file
holds them as float16 or in the sparse encoding, and zeros that a PAD puts around a map are `pads`
of the convolution behind it. Passes then work on mathematics, and writing (`flatbuffer.py`) decides
about storage again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Pads = tuple[tuple[int, int], tuple[int, int]]
NO_PADS: Pads = ((0, 0), (0, 0))


@dataclass(eq=False)
class Tensor:
    """A tensor; two are the same if they are one object.

    Args:
        name: its name in the file.
        shape: its shape.
        dtype: name of its type in the schema, such as "FLOAT32".
        values: its values if it is a constant, in its shape.
        stored: its entry in the file that was read, for what is not looked at here.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "FLOAT32"
    values: np.ndarray | None = None
    stored: Any = None

    @property
    def is_constant(self) -> bool:
        """Whether its values are in the file."""
        return self.values is not None

    @property
    def is_map(self) -> bool:
        """Whether it is a float tensor of the axes batch, height, width, channels."""
        return self.dtype == "FLOAT32" and len(self.shape) == 4 and min(self.shape) > 0

    @classmethod
    def constant(cls, name: str, values: np.ndarray) -> Tensor:
        """Make a constant of float32 or int32 values."""
        dtype = {"f": "FLOAT32", "i": "INT32"}[values.dtype.kind]
        values = np.ascontiguousarray(values, np.float32 if dtype == "FLOAT32" else np.int32)
        return cls(name, values.shape, dtype, values)


@dataclass(eq=False)
class Op:
    """An operator.

    Args:
        code: its name in the schema, such as "CONV_2D".
        inputs: tensors; None for one that is left out.
        outputs: tensors.
        options: the object of the schema that holds its options, or None.
        pads: zeros around the map before a convolution, over height and over width; None for
            operators that are no convolutions.
        sparse: whether its filter is to be stored in the sparse encoding.
        outside: whether it is part of a border of sparse mode, on the outer side.
        origin: the operator of the file that was read which it is made from.
        entry: its entry in the file that was read, for what is not looked at here.
    """

    code: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: Any = None
    pads: Pads | None = None
    sparse: bool = False
    outside: bool = False
    origin: Op | None = None
    entry: Any = None

    @property
    def output(self) -> Tensor:
        """Its first output, the only one of most."""
        return self.outputs[0]

    @property
    def activations(self) -> list[Tensor]:
        """Its inputs that are computed."""
        return [x for x in self.inputs if x is not None and not x.is_constant]

    @property
    def strides(self) -> tuple[int, int]:
        """The strides of a convolution or pooling, over height and over width."""
        return self.options.strideH, self.options.strideW

    @property
    def activation(self) -> int:
        """The fused activation (`ActivationFunctionType`); 0 is none."""
        return getattr(self.options, "fusedActivationFunction", 0)


@dataclass(eq=False)
class Program:
    """The one subgraph of a file.

    Args:
        ops: operators in the order of execution.
        inputs: tensors that are fed.
        outputs: tensors that are fetched.
        float16: whether the file stores weights as float16.
        model: the object of the schema that was read, for what is not looked at here.
    """

    ops: list[Op]
    inputs: list[Tensor]
    outputs: list[Tensor]
    float16: bool = False
    model: Any = field(default=None, repr=False)

    def producers(self) -> dict[Tensor, Op]:
        """Return the operator that computes each tensor."""
        return {tensor: op for op in self.ops for tensor in op.outputs}

    def consumers(self) -> dict[Tensor, list[Op]]:
        """Return the operators that read each tensor."""
        found: dict[Tensor, list[Op]] = {}
        for op in self.ops:
            for tensor in filter(None, op.inputs):
                found.setdefault(tensor, []).append(op)
        return found

    def rewrite(self, replacement: Callable[[Op], Iterable[Op]]) -> None:
        """Replace each operator by those that a function returns for it, in place."""
        self.ops = [new for op in self.ops for new in replacement(op)]

    def redirect(self, tensors: dict[Tensor, Tensor]) -> None:
        """Make the readers of some tensors read others instead."""
        for op in self.ops:
            op.inputs = [x if x is None else tensors.get(x, x) for x in op.inputs]
        self.outputs = [tensors.get(tensor, tensor) for tensor in self.outputs]

    def drop_unused(self) -> None:
        """Remove operators whose outputs nobody reads."""
        used = set(self.outputs)
        kept = []
        for op in reversed(self.ops):
            if not used.isdisjoint(op.outputs):
                used.update(filter(None, op.inputs))
                kept.append(op)
        self.ops = kept[::-1]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after that TensorFlow's "same" means.

    Example:
        >>> same_padding(8, 3, 2), same_padding(9, 3, 2)
        ((0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def windows(size: int, kernel: int, stride: int, pads: tuple[int, int]) -> int:
    """Return how many windows a convolution has along an axis."""
    return (size + sum(pads) - kernel) // stride + 1

"""Which axes of a weight are inputs, outputs and taps: what patterns need to know, and no more.

Every weight is seen as a stack of matrices of shape `(taps, inputs, outputs)`: a Dense kernel has
one tap, a 3x3 convolution nine. Keras keeps its kernels in that order, with few exceptions
(transposed convolutions, EinsumDense), which a transposition turns into it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class KernelLayout:
    """The shape of a weight, and the role of each of its axes.

    Args:
        shape: shape of the weight.
        input_axes: axes that are summed over with the layer's input features.
        output_axes: axes that index the layer's output features.
        heads: for a kernel of an attention layer: the axis that indexes its heads, and how many
            units the heads form. With grouped queries, a unit is the consecutive query heads that
            share a key/value head.

    All other axes are taps (the spatial positions of a convolution kernel).

    Example:
        >>> conv = KernelLayout((3, 3, 16, 32), input_axes=(2,), output_axes=(3,))
        >>> conv.taps_shape
        (9, 16, 32)
    """

    shape: tuple[int, ...]
    input_axes: tuple[int, ...]
    output_axes: tuple[int, ...]
    heads: object = None

    @classmethod
    def default(cls, shape: tuple[int, ...]) -> KernelLayout:
        """Return Keras's usual order `(..., inputs, outputs)`; a vector has outputs alone."""
        rank = len(shape)
        input_axes = (rank - 2,) if rank > 1 else ()
        return cls(tuple(shape), input_axes, (rank - 1,) if rank else ())

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def taps_shape(self) -> tuple[int, int, int]:
        """The shape `(taps, inputs, outputs)`."""
        inputs = math.prod(self.shape[axis] for axis in self.input_axes)
        outputs = math.prod(self.shape[axis] for axis in self.output_axes)
        return self.size // max(inputs * outputs, 1), inputs, outputs

    @property
    def _order(self) -> tuple[int, ...]:
        taps = (a for a in range(len(self.shape)) if a not in self.input_axes + self.output_axes)
        return (*taps, *self.input_axes, *self.output_axes)

    def to_taps(self, array: np.ndarray) -> np.ndarray:
        """Return `array` of shape `shape` as `(taps, inputs, outputs)`, a view where possible."""
        return array.transpose(self._order).reshape(self.taps_shape)

    def from_taps(self, array: np.ndarray) -> np.ndarray:
        """Undo `to_taps`."""
        transposed = array.reshape([self.shape[axis] for axis in self._order])
        return transposed.transpose(np.argsort(self._order))

"""A weight with its layout, its mask and the layers around it: what the engine works on."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfprune.kernel_layout import KernelLayout
from tfprune.sparse_part import SparsePart


@dataclass(frozen=True, eq=False)
class PrunedWeight:
    """A weight that is pruned, or about to be.

    Args:
        variable: the Keras variable.
        layout: roles of its axes.
        mask: boolean variable, false where a weight is pruned; `None`: no weight is pruned yet.
        owners: the layers that contain it, outermost first; the last one created it.
        accumulator: what the criterion has summed over the training steps, if it does.
        part: what a runtime runs sparse together with it, if the pattern looks at that.
    """

    variable: keras.Variable
    layout: KernelLayout
    mask: keras.Variable | None = None
    owners: tuple[keras.layers.Layer, ...] = ()
    accumulator: keras.Variable | None = None
    part: SparsePart | None = None

    @property
    def layer(self) -> keras.layers.Layer:
        """The layer that created the weight."""
        return self.owners[-1]

    @property
    def path(self) -> str:
        """The weight's path, such as `"conv1/kernel"`."""
        return self.variable.path

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.layout.size

    def values(self) -> np.ndarray:
        """Return the weight as a float array, read-only."""
        values = _seen(self.variable)
        # 16-bit floats are slow to sort, and bfloat16 is not numpy's own.
        return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)

    def alive(self) -> np.ndarray | None:
        """Return the mask as a boolean array, read-only."""
        return None if self.mask is None else _seen(self.mask)

    def apply_mask(self) -> None:
        """Set the pruned weights to zero."""
        zero = keras.ops.zeros((), self.variable.dtype)
        self.variable.assign(keras.ops.where(self.mask, self.variable, zero))


def _seen(variable: keras.Variable) -> np.ndarray:
    """Return what a variable holds now, without a copy: a later assignment leaves it alone."""
    return np.asarray(tf.convert_to_tensor(variable.value))

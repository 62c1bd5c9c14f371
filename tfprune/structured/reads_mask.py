"""Masks of whole channels while a model trains: weights that read a channel are held at zero.

That is what the physical cut amounts to, so a model that is cut at the end computes what the masked
one did. Constraints hold the zeros, inside of the compiled training step.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfprune.structured.graph import ChannelGraph
from tfprune.structured.rebuild import Kept


class _Held(keras.constraints.Constraint):
    """Zero where a mask is false, after the weight's own constraint."""

    def __init__(self, mask: keras.Variable, own: Any) -> None:
        self.mask, self.own = mask, own

    def __call__(self, value: Any) -> Any:
        value = value if self.own is None else self.own(value)
        # Not a product, which would leave -0.0 and NaN.
        return keras.ops.where(self.mask, value, keras.ops.zeros((), value.dtype))


class ReadsMask:
    """Holds at zero whatever reads some units of a graph.

    Args:
        graph: the channels of the model that trains.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self._graph = graph
        self._entries = [entry for entry in graph.book.weights.values() if entry.reads]
        for entry in self._entries:
            mask = keras.Variable(
                np.ones(entry.variable.shape, bool),
                dtype="bool",
                trainable=False,
                # Changes outside of the replicas, so there is nothing to average.
                aggregation="only_first_replica",
                name="reads_mask",
            )
            own = entry.variable.constraint
            # One that is left of a run that ended in an exception is replaced.
            entry.variable.constraint = _Held(mask, own.own if isinstance(own, _Held) else own)

    def set(self, dead: np.ndarray) -> None:
        """Hold the readers of some units at zero; `dead` is a boolean array over all ids."""
        kept = Kept(self._graph, dead)
        for entry in self._entries:
            mask = np.ones(entry.variable.shape, bool)
            for axis in entry.reads:
                mask[(slice(None),) * axis + (~kept.mask(entry.ids[axis]),)] = False
            entry.variable.constraint.mask.assign(mask)
        self.apply()

    def apply(self) -> None:
        """Set the weights to zero where they are held."""
        for entry in self._entries:
            value = entry.variable
            zero = keras.ops.zeros((), value.dtype)
            value.assign(keras.ops.where(value.constraint.mask, value, zero))

    def release(self) -> None:
        """Give the weights their own constraints back."""
        for entry in self._entries:
            if isinstance(entry.variable.constraint, _Held):
                entry.variable.constraint = entry.variable.constraint.own

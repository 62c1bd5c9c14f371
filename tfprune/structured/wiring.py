"""What is known of a model's channels while its calls are gone through, one after the other.

A tensor's `Wiring` says which axis holds its channels, and which id each of them has. Of a weight,
every axis can have ids. Both are only claims until the last call is seen: ids are united and frozen
all along, so what they stand for is asked of the `Labels` at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.structured.labels import Labels

Count = Callable[[np.ndarray], int]
Change = Callable[[dict[str, Any], Count], dict[str, Any]]
"""A function of a layer's config, and of one that tells how many of some ids are kept: it returns
the config of the narrower layer."""
Scale = Callable[[Count], float]


@dataclass(frozen=True, eq=False)
class Wiring:
    """The channels of a tensor.

    Args:
        axis: the axis that counts them; the batch is axis 0.
        ids: the id of each channel along the axis.
    """

    axis: int
    ids: np.ndarray


@dataclass(eq=False)
class WeightAxes:
    """The channels of a weight.

    Args:
        variable: the weight.
        owner: path of the layer that holds it.
        layer: name of that layer.
        ids: the ids along each axis; `None` for axes that are never cut.
        reads: the axes along which the weight takes channels in; setting such slices to zero is
            the same as taking the channel away.
        makes: the axes along which the layer makes channels.
        scale: a factor for the values of the narrower weight.
    """

    variable: keras.Variable
    owner: str
    layer: str
    ids: list[np.ndarray | None]
    reads: set[int] = field(default_factory=set)
    makes: set[int] = field(default_factory=set)
    scale: Scale | None = None


class Book:
    """Collects what the rules find out.

    Attributes:
        labels: the ids, united and frozen.
        weights: the channels of each weight, by `id` of the variable.
        changes: how each layer's config changes, by `id` of the layer.
        selections: by `id` of a node, for each of its outputs, the axis and the slots of the input
            that it is made of: an operation that only selects channels.
        reads_kept: by `id` of a layer, that it computes over its channels (LayerNormalization), so
            that it must see the kept ones alone.
    """

    def __init__(self, layer_norm: str = "freeze") -> None:
        self.labels = Labels()
        self.layer_norm = layer_norm
        self.weights: dict[int, WeightAxes] = {}
        self.changes: dict[int, Change] = {}
        self.selections: dict[int, list[tuple[int, np.ndarray]]] = {}
        self.reads_kept: set[int] = set()

    def claim(
        self,
        variable: keras.Variable | None,
        axis: int,
        ids: np.ndarray,
        owner: str,
        *,
        reads: bool = False,
        makes: bool = False,
    ) -> None:
        """Say which ids lie along an axis of a weight; uniting them with those of earlier calls."""
        if variable is None:
            return
        shape = tuple(variable.shape)
        axis %= len(shape)
        name = owner.rpartition("/")[2]
        entry = self.weights.setdefault(
            id(variable), WeightAxes(variable, owner, name, [None] * len(shape))
        )
        if shape[axis] != len(ids):
            raise ValueError(f"{len(ids)} ids for axis {axis} of {variable.path}, {shape}")
        known = entry.ids[axis]
        if known is None:
            entry.ids[axis] = ids
        else:
            self.labels.unite(known, ids)
        if reads:
            entry.reads.add(axis)
        if makes:
            entry.makes.add(axis)

    def known(self, variable: keras.Variable | None, axis: int) -> np.ndarray | None:
        """Return the ids along an axis of a weight, if an earlier call has claimed some."""
        if variable is None or id(variable) not in self.weights:
            return None
        ids = self.weights[id(variable)].ids
        return ids[axis % len(ids)]

    def made(self, variable: keras.Variable, axis: int, count: int | None = None) -> np.ndarray:
        """Return the ids of the channels that a layer makes: the same ones in each of its calls."""
        known = self.known(variable, axis)
        return self.labels.new(count or variable.shape[axis]) if known is None else known

    def along(self, wiring: Wiring | None, axis: int, size: int, reason: str) -> np.ndarray:
        """Return a tensor's ids along the axis that a layer contracts.

        Channels on another axis are mixed by the layer, and so frozen; then, and where a tensor
        has no channels, the ids are new and frozen ones.
        """
        if wiring is not None and wiring.axis == axis:
            return wiring.ids
        if wiring is not None:
            self.labels.freeze(wiring.ids, reason)
        return self.labels.new(size, reason)

    def frozen(
        self, wirings: Sequence[Wiring | None], shapes: Sequence[Any], reason: str
    ) -> list[Wiring | None]:
        """Freeze what goes into an operation, and what comes out of it.

        Args:
            wirings: the channels of its inputs.
            shapes: the shapes of its outputs.
            reason: why.

        Returns:
            The wirings of the outputs: their last axis, if it may have channels at all.
        """
        for wiring in wirings:
            if wiring is not None:
                self.labels.freeze(wiring.ids, reason)
        return [
            Wiring(len(shape) - 1, self.labels.new(shape[-1], reason))
            if len(shape) > 1 and shape[-1] is not None
            else None
            for shape in shapes
        ]

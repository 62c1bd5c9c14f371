"""`ChannelGraph`: which channels of a model go together, and which cannot go.

The calls of the model are gone through once. Layers with weights are wired by rules, everything
else is probed by running it (see `trace`), so that no list of operations has to be complete. The
idea of coupled groups is that of DepGraph (Fang et al., 2023, "DepGraph: Towards Any Structural
Pruning"); what is new here is that couplings are measured, channel by channel.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from tfprune.cloning import is_rebuildable
from tfprune.errors import InvalidArgumentError, UnsupportedModelError
from tfprune.model_checks import check_built, check_layer
from tfprune.pruning import is_pruned
from tfprune.structured.groups import Axis, count_parameters, group_channels
from tfprune.structured.rules import Site, rule_for
from tfprune.structured.trace import Tracer
from tfprune.structured.walk import Call, walk
from tfprune.structured.wiring import Book, Wiring

LAYER_NORM_MODES = ("freeze", "allow")


class ChannelGraph:
    """The channels of a model: groups that can be cut, and what is frozen, with the reason.

    A *unit* is a set of channels, all over the model, that go together or not at all: an output
    channel of a convolution, its batch normalization's statistics, the inputs of the layers that
    read it. Units whose channels are made by the same layers form a *group*.

    Args:
        model: a built Functional or Sequential model.
        layer_norm: `"freeze"` leaves channels alone that a LayerNormalization computes over;
            `"allow"` cuts them, though the layer's statistics change with it: the narrower model is
            then a good start for training, but not equal to the given one with channels at zero.

    Raises:
        InvalidArgumentError: for another `layer_norm`.
        InvalidTypeError: for anything but a Keras model.
        UnsupportedModelError: for a tf_keras, unbuilt, subclassed or pruned model.

    Example:
        >>> inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
        >>> x = keras.layers.BatchNormalization(name="norm")(x)
        >>> x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        >>> graph = ChannelGraph(keras.Model(inputs, keras.layers.Dense(2, name="head")(x)))
        >>> print(graph)
        conv: 4 channels in 4 units
          conv => norm => head (reads)
        frozen: 2 of head (an output of the model)
    """

    def __init__(self, model: keras.Model, *, layer_norm: str = "freeze") -> None:
        if layer_norm not in LAYER_NORM_MODES:
            raise InvalidArgumentError(
                f"`layer_norm` must be 'freeze' or 'allow'. Received: {layer_norm!r}"
            )
        check_shrinkable(model)
        self.model = model
        self.layer_norm = layer_norm
        self.walk = walk(model)
        _check_not_tied(self.walk.calls)
        self.book = Book(layer_norm)
        self.wirings: list[Wiring | None] = [None] * len(self.walk.tensors)
        self._wire_calls()
        self._unite_twins()
        for number in self.walk.outputs:
            self._freeze(number, "an output of the model")
        labels = self.book.labels
        # Nothing is united any more: the unit of every id, once and for all.
        self._roots = labels.roots(np.arange(labels.count))
        self.axes = tuple(self._axes())
        self.groups, self.frozen = group_channels(self.axes, labels)
        self.is_alive = np.zeros(labels.count, bool)
        for group in self.groups:
            self.is_alive[group.units] = True

    @property
    def size(self) -> int:
        """How many ids there are; a cut is a boolean array over them."""
        return self.book.labels.count

    def units(self, ids: np.ndarray) -> np.ndarray:
        """Return the unit of each of some ids."""
        return self._roots[ids]

    def bound_axes(self) -> list[np.ndarray]:
        """Return the units along every different axis of a tensor or a weight: none may go empty.

        Returns:
            Integer arrays, one unit per channel; frozen ones are -1.
        """
        found: dict[bytes, np.ndarray] = {}
        every = [axis.units for axis in self.axes]
        every += [self.units(wiring.ids) for wiring in self.wirings if wiring is not None]
        for units in every:
            if self.is_alive[units].any():
                found[units.tobytes()] = np.where(self.is_alive[units], units, -1)
        return list(found.values())

    def to_dict(self) -> dict[str, Any]:
        """Return groups and frozen channels as plain values that JSON can hold."""
        groups = [
            group.to_dict() | {"parameters": count_parameters(group)} for group in self.groups
        ]
        return {"groups": groups, "frozen": [asdict(frozen) for frozen in self.frozen]}

    def __str__(self) -> str:
        return "\n".join(str(part) for part in (*self.groups, *self.frozen))

    def _wire_calls(self) -> None:
        tensors, labels = self.walk.tensors, self.book.labels
        for number in self.walk.inputs:
            [self.wirings[number]] = self.book.frozen(
                [], [tensors[number].shape], "an input of the model"
            )
        tracer = Tracer(self.book)
        for call in self.walk.calls:
            wirings = [self.wirings[number] for number in call.inputs]
            if any(len(tensors[number].shape) == 0 for number in (*call.inputs, *call.outputs)):
                shapes = [tensors[number].shape for number in call.outputs]
                outputs = self.book.frozen(wirings, shapes, f"{call.path} has no batch axis")
            else:
                outputs = self._by_rule(call, wirings)
                if outputs is None:
                    outputs = tracer.wire(call, [tensors[n] for n in call.inputs], wirings)
            for number, wiring in zip(call.outputs, outputs, strict=True):
                if wiring is not None and len(wiring.ids) == 1:
                    # It can be broadcast to any number of others, which it is not tied to.
                    labels.freeze(wiring.ids, "the only channel")
                    continue
                self.wirings[number] = wiring

    def _by_rule(self, call: Call, wirings: list[Wiring | None]) -> list[Wiring | None] | None:
        """Wire a call by the rule of its layer, if it has one."""
        if not call.operation_has_weights:
            return None
        roles = _roles(call)
        # Masks say which time steps count, and have no channels.
        used = [place for place, role in enumerate(roles) if not role.endswith("mask")]
        rule = rule_for(call.operation, len(used))
        if rule is None:
            return None
        tensors = self.walk.tensors
        for place in set(range(len(roles))) - set(used):
            self._freeze(call.inputs[place], f"{call.path} takes them as a mask")
        site = Site(
            call.operation,
            call.path,
            [wirings[place] for place in used],
            [tensors[call.inputs[place]].shape for place in used],
            [tensors[number].shape for number in call.outputs],
            [roles[place] for place in used],
        )
        return rule(site, self.book)

    def _unite_twins(self) -> None:
        """Make the calls of a nested model alike: it can only become narrower as a whole."""
        labels = self.book.labels
        for first, second in self.walk.twins:
            pair = self.wirings[first], self.wirings[second]
            if None not in pair and pair[0].axis == pair[1].axis:
                labels.unite(pair[0].ids, pair[1].ids)
            else:
                for number in (first, second):
                    self._freeze(number, "a nested model is called with other channels elsewhere")

    def _freeze(self, number: int, reason: str) -> None:
        wiring = self.wirings[number]
        if wiring is not None:
            self.book.labels.freeze(wiring.ids, reason)

    def _axes(self) -> Iterator[Axis]:
        for entry in self.book.weights.values():
            for axis, ids in enumerate(entry.ids):
                if ids is not None:
                    yield Axis(
                        entry.owner,
                        # The part of the variable's path that lies inside of its layer.
                        entry.variable.path.partition(f"{entry.layer}/")[2] or entry.variable.name,
                        entry.variable,
                        axis,
                        self.units(ids),
                        reads=axis in entry.reads,
                        makes=axis in entry.makes,
                    )


def check_shrinkable(model: Any) -> None:
    """Refuse a model that cannot be taken apart and built anew.

    Raises:
        InvalidTypeError: for anything but a Keras model.
        UnsupportedModelError: for a tf_keras, unbuilt, subclassed or pruned model.
    """
    check_layer(model)
    if not is_rebuildable(model):
        raise UnsupportedModelError(
            f"{model.name!r} is a {type(model).__name__}: a class of its own, whose channels "
            "cannot be seen from outside. Build it as a Functional model: call its layers on a "
            "`keras.Input(...)` and pass `keras.Model(inputs, outputs)`; weights are taken over "
            "with `functional.set_weights(model.get_weights())`."
        )
    check_built(model)
    if is_pruned(model):
        raise UnsupportedModelError(
            f"{model.name!r} holds pruning masks. Call `tfprune.strip(model)` first."
        )


def _check_not_tied(calls: Sequence[Call]) -> None:
    """Refuse a model in which layers share a variable: their copies would not."""
    layers = {id(call.operation): call.operation for call in calls}.values()
    owned = [{id(v): v for v in getattr(layer, "weights", ())} for layer in layers]
    uses = Counter(key for variables in owned for key in variables)
    tied = {v.path for variables in owned for key, v in variables.items() if uses[key] > 1}
    if tied:
        raise UnsupportedModelError(
            f"These weights are shared between layers: {', '.join(sorted(tied))}. Keras copies "
            "them as separate weights, which would untie them. Call one layer several times "
            "instead, which shares its weights and is kept."
        )


def _roles(call: Call) -> tuple[str, ...]:
    """Return the name of the argument that each input tensor of a layer's call is part of."""
    arguments = call.node.arguments
    parameters = [
        name for name in inspect.signature(call.operation.call).parameters if name != "self"
    ]
    roles = []
    for name, value in zip(parameters, arguments.args, strict=False):
        roles += [name] * _tensors_in(value)
    # Keras flattens dicts in the order of their keys.
    for name, value in sorted(arguments.kwargs.items()):
        roles += [name] * _tensors_in(value)
    return tuple(roles)


def _tensors_in(value: Any) -> int:
    return sum(isinstance(part, keras.KerasTensor) for part in keras.tree.flatten(value))

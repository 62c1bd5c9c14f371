"""Build the narrower model: layers from changed configs, weights from kept slices.

The graph is walked call by call, as in `tfprune.cloning`, but inputs of nested models, shapes in
configs and selections of channels change, and the shape of every tensor is checked on the way: a
narrower layer that Keras accepts is not always the one that was meant.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional

from tfprune.cloning import LayerCopier, copy_operation, is_rebuildable
from tfprune.errors import UnsupportedModelError
from tfprune.structured.blocks import graph_of
from tfprune.structured.graph import ChannelGraph
from tfprune.structured.operations import narrow_operation


def rebuild_narrow(graph: ChannelGraph, dead: np.ndarray) -> keras.Model:
    """Return a new, uncompiled model without some units.

    Args:
        graph: the channels of the given model, which stays as it is.
        dead: boolean array over all ids of the graph, true for units that go.

    Raises:
        UnsupportedModelError: if the narrower model would not have the shapes it must have.
    """
    return _Rebuild(graph, dead).run()


class Kept:
    """Which channels stay, asked by their ids.

    Args:
        graph: the channels.
        dead: as in `rebuild_narrow`.
    """

    def __init__(self, graph: ChannelGraph, dead: np.ndarray) -> None:
        self._graph = graph
        self._dead = dead

    def mask(self, ids: np.ndarray) -> np.ndarray:
        """Return a boolean array, true for the channels that stay."""
        return ~self._dead[self._graph.units(ids)]

    def count(self, ids: np.ndarray) -> int:
        """Return how many stay."""
        return int(self.mask(ids).sum())

    def shape(self, number: int) -> tuple[int | None, ...]:
        """Return the shape that a tensor has in the narrower model."""
        shape = list(self._graph.walk.tensors[number].shape)
        wiring = self._graph.wirings[number]
        if wiring is not None:
            shape[wiring.axis] = self.count(wiring.ids)
        return tuple(shape)

    def values(self, variable: keras.Variable) -> Any:
        """Return what is left of a variable, scaled if the narrower layer needs it so."""
        entry = self._graph.book.weights.get(id(variable))
        if entry is None:
            return variable
        values = self.slices(variable, keras.ops.convert_to_numpy(variable))
        factor = 1.0 if entry.scale is None else entry.scale(self.count)
        # bfloat16 times a Python float would be float64.
        return values if factor == 1.0 else (values * factor).astype(values.dtype)

    def slices(self, variable: keras.Variable, values: np.ndarray) -> np.ndarray:
        """Return the part of an array of a variable's shape that stays."""
        entry = self._graph.book.weights.get(id(variable))
        for axis, ids in enumerate(entry.ids if entry else ()):
            if ids is not None:
                kept = self.mask(ids)
                values = values if kept.all() else np.compress(kept, values, axis)
        return values


class _Rebuild:
    def __init__(self, graph: ChannelGraph, dead: np.ndarray) -> None:
        self._graph = graph
        self._kept = Kept(graph, dead)
        self._copier = LayerCopier()
        self._new: dict[Any, Any] = {}
        self._initializers: list[tuple[keras.layers.Layer, str, Any]] = []

    def run(self) -> keras.Model:
        model = self._model(self._graph.model)
        for layer, name, own in self._initializers:
            setattr(layer, name, own)
        self._copier.transfer_state(self._kept.values)
        return model

    def _model(self, old: keras.Model) -> keras.Model:
        if id(old) not in self._new:
            build = self._sequential if isinstance(old, keras.Sequential) else self._functional
            self._new[id(old)] = build(old)
            self._copier.pair(old, self._new[id(old)])
        return self._new[id(old)]

    def _sequential(self, old: keras.Sequential) -> keras.Sequential:
        nodes = {id(node.operation): node for node in _nodes(old)}
        layers = []
        for layer in old.layers:
            if is_rebuildable(layer):
                layers.append(self._model(layer))
            else:
                [number] = self._numbers(old, nodes[id(layer)].outputs)
                layers.append(self._operation(layer, number))
        new = keras.Sequential([self._input(old, old.inputs[0]), *layers], name=old.name)
        self._check(old, new.name, graph_of(old).outputs, graph_of(new).outputs)
        return new

    def _functional(self, old: Functional) -> Functional:
        inputs = keras.tree.map_structure(lambda x: self._input(old, x).output, old.input)
        given = zip(keras.tree.flatten(old.input), keras.tree.flatten(inputs), strict=True)
        tensors = {id(before): after for before, after in given}
        for node in _nodes(old):
            args, kwargs = node.arguments.fill_in(tensors)
            outputs = keras.tree.flatten(self._call(old, node, args, kwargs))
            self._check(old, node.operation.name, node.outputs, outputs)
            tensors.update(zip(map(id, node.outputs), outputs, strict=True))
        outputs = keras.tree.map_structure(lambda x: tensors[id(x)], old._outputs_struct)
        return Functional(inputs, outputs, name=old.name)

    def _call(self, model: keras.Model, node: Any, args: Any, kwargs: Any) -> Any:
        operation = node.operation
        if is_rebuildable(operation):
            return self._model(operation)(*args, **kwargs)
        if id(node) in self._graph.book.selections:
            return self._select(model, node, args[0])
        [number, *_] = self._numbers(model, node.outputs)
        return self._operation(operation, number)(*args, **kwargs)

    def _select(self, model: keras.Model, node: Any, tensor: Any) -> list[Any]:
        """Take the same channels as the original did, counted in the narrower tensor."""
        [source] = self._numbers(model, node.input_tensors)
        kept = self._kept.mask(self._graph.wirings[source].ids)
        places = np.cumsum(kept) - 1
        return [
            keras.ops.take(tensor, places[slots[kept[slots]]].tolist(), axis=axis)
            for axis, slots in self._graph.book.selections[id(node)]
        ]

    def _operation(self, operation: Any, number: int) -> Any:
        """Return the narrower copy of a layer or operation, which makes the given tensor."""
        wiring = self._graph.wirings[number]
        axis = None if wiring is None else wiring.axis
        size = None if axis is None else self._kept.shape(number)[axis]
        narrow = narrow_operation(operation, axis, size)
        # A Reshape may be shared by tensors of different widths.
        key = id(operation) if narrow is None else (id(operation), axis, size)
        if key not in self._new:
            self._new[key] = self._copied(operation) if narrow is None else narrow
        return self._new[key]

    def _copied(self, operation: Any) -> Any:
        if not isinstance(operation, keras.layers.Layer):
            return copy_operation(operation)
        change = self._graph.book.changes.get(id(operation))
        narrow = None if change is None else lambda config: change(config, self._kept.count)
        layer = self._copier.copy(operation, narrow)
        if layer is not operation:
            self._put_initializers_off(layer)
        return layer

    def _put_initializers_off(self, layer: keras.layers.Layer) -> None:
        """Have a layer built with zeros: random values take long, and are replaced anyway."""
        for name, own in list(vars(layer).items()):
            if name.endswith("_initializer") and not name.startswith("_"):
                self._initializers.append((layer, name, own))
                setattr(layer, name, keras.initializers.Zeros())

    def _input(self, model: keras.Model, tensor: keras.KerasTensor) -> keras.layers.InputLayer:
        old = tensor._keras_history.operation
        [number] = self._numbers(model, [tensor])
        return type(old).from_config({**old.get_config(), "batch_shape": self._kept.shape(number)})

    def _check(self, model: keras.Model, name: str, before: Any, after: Any) -> None:
        wanted = [self._kept.shape(number) for number in self._numbers(model, before)]
        found = [tuple(tensor.shape) for tensor in after]
        if wanted != found:
            raise UnsupportedModelError(
                f"{name!r} would return tensors of shapes {found} in the smaller model, and "
                f"{wanted} is what the rest needs. This is a mistake of tfprune's: please report "
                f"the layer, and pass `exclude=[{name!r}]` until it is mended."
            )

    def _numbers(self, model: keras.Model, tensors: Any) -> list[int]:
        numbers = self._graph.walk.numbers
        return [numbers[id(model), id(tensor)] for tensor in tensors]


def _nodes(model: keras.Model) -> list[Any]:
    by_depth = graph_of(model)._nodes_by_depth
    return [
        n for depth in sorted(by_depth, reverse=True) for n in by_depth[depth] if not n.is_input
    ]

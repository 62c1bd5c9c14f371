"""The calls of a model in the order of computation, with nested models taken apart.

A layer that is called twice makes two calls. Tensors are numbered: a model that is called twice
reuses its inner symbolic tensors, so these alone would not tell its calls apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
from keras.src.ops.node import Node

from tfprune.cloning import is_rebuildable
from tfprune.structured.blocks import graph_of


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or an inline operation.

    Args:
        operation: the layer or operation.
        node: where Keras keeps the arguments of the call.
        path: name of the operation, after those of the nested models around it.
        inputs: numbers of the tensors in `node.input_tensors`.
        outputs: numbers of the tensors in `node.outputs`.
        in_sequential: whether the call belongs to a Sequential model.
    """

    operation: Any
    node: Node
    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    in_sequential: bool = False

    @property
    def operation_has_weights(self) -> bool:
        """Whether the operation is a layer with weights."""
        return bool(getattr(self.operation, "weights", ()))

    def run(self, tensors: Any, operation: Any = None) -> list[Any]:
        """Call the operation in inference mode.

        Args:
            tensors: what stands for each of `inputs`: tensors or arrays, or symbolic tensors.
            operation: what to call instead of the operation itself.

        Returns:
            The outputs as a flat list.
        """
        operation = self.operation if operation is None else operation
        symbolic = self.node.input_tensors
        values = {id(x): value for x, value in zip(symbolic, tensors, strict=True)}
        args, kwargs = self.node.arguments.fill_in(values)
        if "training" in getattr(operation, "_call_context_args", {}):
            kwargs.setdefault("training", False)
        return keras.tree.flatten(operation(*args, **kwargs))


@dataclass
class Walk:
    """All calls of a model, nested ones included.

    Attributes:
        calls: the calls, in the order of computation.
        tensors: the symbolic tensor behind each number.
        inputs: numbers of the model's inputs.
        outputs: numbers of the model's outputs.
        numbers: by `id` of a model and of a symbolic tensor in it, the number that the tensor has
            in the first call of that model.
        twins: pairs of numbers that are one and the same symbolic tensor in two calls of a model.
    """

    calls: list[Call] = field(default_factory=list)
    tensors: list[keras.KerasTensor] = field(default_factory=list)
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    numbers: dict[tuple[int, int], int] = field(default_factory=dict)
    twins: list[tuple[int, int]] = field(default_factory=list)


def walk(model: keras.Model) -> Walk:
    """List the calls of a built Functional or Sequential model.

    Example:
        >>> inputs = keras.Input((4,))
        >>> inner = keras.Sequential([inputs, keras.layers.Dense(4, name="d")], name="inner")
        >>> found = walk(keras.Model(inputs, inner(inner(inputs))))
        >>> [(call.path, call.inputs, call.outputs) for call in found.calls]
        [('inner/d', (0,), (1,)), ('inner/d', (1,), (2,))]
    """
    found = Walk()
    graph = graph_of(model)
    numbers = {}
    for tensor in graph.inputs:
        numbers[id(tensor)] = _number(found, tensor)
    found.inputs = tuple(numbers.values())
    _walk_graph(found, model, numbers, "")
    found.outputs = tuple(numbers[id(tensor)] for tensor in graph.outputs)
    return found


def _walk_graph(found: Walk, model: keras.Model, numbers: dict[int, int], prefix: str) -> None:
    """Walk one model, whose input tensors have numbers already; its other tensors get theirs."""
    graph = graph_of(model)
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            operation = node.operation
            inputs = tuple(numbers[id(tensor)] for tensor in node.input_tensors)
            if is_rebuildable(operation):
                inner = dict(zip(map(id, graph_of(operation).inputs), inputs, strict=False))
                _walk_graph(found, operation, inner, f"{prefix}{operation.name}/")
                results = [inner[id(tensor)] for tensor in graph_of(operation).outputs]
                numbers.update(zip(map(id, node.outputs), results, strict=True))
                continue
            outputs = tuple(_number(found, tensor) for tensor in node.outputs)
            numbers.update(zip(map(id, node.outputs), outputs, strict=True))
            in_sequential = isinstance(model, keras.Sequential)
            path = prefix + operation.name
            found.calls.append(Call(operation, node, path, inputs, outputs, in_sequential))
    for tensor, number in numbers.items():
        first = found.numbers.setdefault((id(model), tensor), number)
        if first != number:
            found.twins.append((first, number))


def _number(found: Walk, tensor: keras.KerasTensor) -> int:
    found.tensors.append(tensor)
    return len(found.tensors) - 1

"""The parts of a model that can be left out: residual blocks, and layers that keep the shape.

A residual block adds a branch to its own input, y = x + f(x); without the branch it is y = x, so
everything around it still fits (Veit et al., 2016, "Residual Networks Behave Like Ensembles of
Relatively Shallow Networks"). Blocks are found by walking the graph back from each addition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.backend.common.masking import get_keras_mask
from keras.src.models.functional import Functional
from keras.src.ops.node import Node
from keras.src.ops.numpy import Add, Copy

from tfprune.cloning import is_rebuildable
from tfprune.errors import UnsupportedModelError
from tfprune.model_checks import check_built, check_layer
from tfprune.prunable import SkipReason, find_candidates
from tfprune.pruning import is_pruned

Bypass = dict[int, Callable[..., Any]]


@dataclass(frozen=True, eq=False)
class ResidualBlock:
    """A part of a model whose input can stand for its output.

    Args:
        name: name of `merge`, after the names of the nested models that contain it:
            `"resnet50/conv2_block2_add"`.
        merge: the addition, a layer or the operation of an inline `+`; of a block that is a single
            layer, the layer itself.
        shortcut: the tensor that can take the place of what `merge` returns.
        layers: the layers that go with the block.
        parameters: how many parameters they have.
    """

    name: str
    merge: keras.Operation
    shortcut: keras.KerasTensor
    layers: tuple[keras.layers.Layer, ...]
    parameters: int

    @property
    def is_single_layer(self) -> bool:
        """Whether this is a layer that keeps its input's shape, with no shortcut around it."""
        return self.layers == (self.merge,)


def find_blocks(model: keras.Model) -> list[ResidualBlock]:
    """List the residual blocks of a model, and the layers outside of them that could be left out.

    An addition ends a block if one of its inputs has the shape of the sum, and all others are
    computed from that one (and maybe more, as in cross-attention), by layers that are called once.
    So a shortcut with a layer of its own ends none. A layer with kernels counts if it keeps the
    shape of its only input, masks aside, and its output is not one of the model's.

    Args:
        model: a built Functional or Sequential model; nested ones are looked into.

    Returns:
        The blocks in model order, those of nested models after the others.

    Raises:
        InvalidTypeError: for anything but a Keras model.
        UnsupportedModelError: for a tf_keras, unbuilt, subclassed or pruned model.

    Example:
        >>> inputs = keras.Input((4,))
        >>> x = keras.layers.Add(name="join")([inputs, keras.layers.Dense(4, name="f")(inputs)])
        >>> x = keras.layers.Dense(4, name="g")(x)
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
        >>> [(b.name, b.parameters, b.is_single_layer) for b in find_blocks(model)]
        [('join', 20, False), ('g', 20, True)]
    """
    _check_model(model)
    graphs = _graphs(model)
    calls = Counter(id(node.operation) for _, graph in graphs for node in _nodes(graph))
    blocks: list[ResidualBlock] = []
    for prefix, graph in graphs:
        nodes = [node for node in _nodes(graph) if calls[id(node.operation)] == 1]
        residual = {id(node): _residual_block(graph, node, prefix, calls) for node in nodes}
        inside = {layer for block in residual.values() if block for layer in block.layers}
        for node in nodes:
            if block := residual[id(node)]:
                blocks.append(block)
            elif node.operation not in inside and _is_removable_layer(graph, node):
                layer, source = node.operation, _sources(node)[0]
                blocks.append(_block(prefix, layer, source, [layer]))
    return blocks


def bypass(model: keras.Model, blocks: Iterable[ResidualBlock]) -> Bypass:
    """Return what to call instead of a model's operations to run it without some blocks.

    Args:
        model: the model that the blocks were found in.
        blocks: the blocks to leave out.

    Returns:
        Functions by `id` of the operation: that of a merge returns the block's shortcut, those of
        operations that nothing needs any more return `None` for each output.
    """
    by_merge = {id(block.merge): block for block in blocks}
    shortcuts = {merge: block.shortcut for merge, block in by_merge.items()}
    functions: Bypass = {}
    for _, graph in _graphs(model):
        needed = _calls_behind(graph.outputs, shortcuts=shortcuts)
        operations = {id(node.operation) for node in needed.values()}
        for node in _nodes(graph):
            operation = id(node.operation)
            if operation not in operations:
                functions[operation] = _returning([None] * len(node.outputs))
            elif operation in by_merge:
                functions[operation] = _passing_on(node, by_merge[operation])
    return functions


def graph_of(model: keras.Model) -> Functional:
    """Return the graph of a Functional or Sequential model."""
    return model._functional if isinstance(model, keras.Sequential) else model


def _check_model(model: Any) -> None:
    check_layer(model)
    if not is_rebuildable(model):
        raise UnsupportedModelError(
            f"{model.name!r} is a {type(model).__name__}: a class of its own, whose blocks cannot "
            "be seen from outside. Leave blocks out where you define it, or make it a Functional "
            "model."
        )
    check_built(model)
    if is_pruned(model):
        raise UnsupportedModelError(
            f"{model.name!r} holds pruning masks. Call `tfprune.strip(model)` first; afterwards "
            '`tfprune.prune(smaller, schedule="keep")` holds the zeros of the smaller model.'
        )


def _graphs(model: keras.Model) -> list[tuple[str, Functional]]:
    """Return the graphs of a model and of those nested in it, each once, after its prefix."""
    found: dict[int, tuple[str, Functional]] = {}

    def visit(part: keras.Model, prefix: str) -> None:
        if id(part) not in found:
            found[id(part)] = (prefix, graph_of(part))
            for operation in graph_of(part).operations:
                if is_rebuildable(operation):
                    visit(operation, f"{prefix}{operation.name}/")

    visit(model, "")
    return list(found.values())


def _nodes(graph: Functional) -> Iterator[Node]:
    """Yield the calls of a graph in the order of computation, without the inputs."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from (node for node in graph._nodes_by_depth[depth] if not node.is_input)


def _residual_block(
    graph: Functional, node: Node, prefix: str, calls: Counter
) -> ResidualBlock | None:
    """Return the block with parameters that a call of an addition ends, if it ends one."""
    if not isinstance(node.operation, (keras.layers.Add, Add)):
        return None
    for shortcut in node.input_tensors:
        others = [tensor for tensor in node.input_tensors if tensor is not shortcut]
        behind = [_calls_behind([other], shortcut) for other in others]
        starts_here = behind and all(
            any(tensor is shortcut for call in calls.values() for tensor in call.input_tensors)
            for calls in behind
        )
        is_alone = len(others) == len(node.input_tensors) - 1
        if starts_here and is_alone and _is_alike(shortcut, node.outputs[0]):
            needed = _calls_behind(graph.outputs, shortcuts={id(node.operation): shortcut})
            branch = {key: call for calls in behind for key, call in calls.items()}
            left = [call for key, call in branch.items() if not (key in needed or call.is_input)]
            gone = {call.operation for call in left}
            layers = [layer for layer in graph.layers if layer in gone]
            block = _block(prefix, node.operation, shortcut, layers)
            called_once = all(calls[id(operation)] == 1 for operation in gone)
            return block if block.parameters and called_once else None
    return None


def _is_removable_layer(graph: Functional, node: Node) -> bool:
    """Whether a call is that of a layer with kernels whose input can stand for its output."""
    if not isinstance(node.operation, keras.layers.Layer) or len(_sources(node)) != 1:
        return False
    output = node.outputs[0]
    if len(node.outputs) > 1 or any(output is made for made in graph.outputs):
        return False
    # A layer without kernels, such as a normalization, is no step of its own.
    has_kernels = any(
        candidate.reason is not SkipReason.NOT_A_KERNEL
        for candidate in find_candidates(node.operation)
    )
    return has_kernels and _is_alike(_sources(node)[0], output)


def _sources(node: Node) -> list[keras.KerasTensor]:
    """Return the tensors that a call is given, each once, without masks."""
    tensors = {id(tensor): tensor for tensor in node.input_tensors if tensor.dtype != "bool"}
    return list(tensors.values())


def _block(
    prefix: str,
    merge: keras.Operation,
    shortcut: keras.KerasTensor,
    layers: Sequence[keras.layers.Layer],
) -> ResidualBlock:
    parameters = sum(layer.count_params() for layer in layers)
    return ResidualBlock(prefix + merge.name, merge, shortcut, tuple(layers), parameters)


def _calls_behind(
    tensors: Iterable[keras.KerasTensor],
    until: keras.KerasTensor | None = None,
    shortcuts: dict[int, keras.KerasTensor] | None = None,
) -> dict[int, Node]:
    """Return the calls that tensors are computed by, by `id`.

    Args:
        tensors: the tensors.
        until: a tensor to go back to and no further.
        shortcuts: tensors that take the place of an operation's output, by the operation's `id`.
    """
    calls: dict[int, Node] = {}
    ahead = list(tensors)
    while ahead:
        tensor = ahead.pop()
        operation, index, _ = tensor._keras_history
        call = operation._inbound_nodes[index]
        if tensor is until or id(call) in calls:
            continue
        calls[id(call)] = call
        shortcut = (shortcuts or {}).get(id(operation))
        ahead.extend(call.input_tensors if shortcut is None else [shortcut])
    return calls


def _is_alike(first: keras.KerasTensor, second: keras.KerasTensor) -> bool:
    return (first.shape, first.dtype) == (second.shape, second.dtype)


def _passing_on(node: Node, block: ResidualBlock) -> Callable[..., Any]:
    """Return a function that gives back the argument which stands where the shortcut does."""
    arguments = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    position = next(i for i, argument in enumerate(arguments) if argument is block.shortcut)
    has_mask = get_keras_mask(block.shortcut) is not None
    ends_mask = has_mask and get_keras_mask(node.outputs[0]) is None

    def pass_on(*args: Any, **kwargs: Any) -> Any:
        shortcut = keras.tree.flatten((args, kwargs))[position]
        # An inline `+` drops the timestep mask, and so does this, if the model is to stay the same.
        drops_mask = ends_mask and not block.is_single_layer
        return Copy(name=block.merge.name)(shortcut) if drops_mask else shortcut

    return pass_on


def _returning(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value

"""What follows a layer in the graph of its model: `Conv2D`, then `BatchNormalization`, then `ReLU`.

Plain Functional and Sequential models have a graph, across nested ones too. Inside of other layers
and of a user's own models it is unknown what follows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras.src.activations import ALL_OBJECTS_DICT
from keras.src.models.functional import Functional

from tfprune.cloning import is_rebuildable
from tfprune.wrappers import Pruned

NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)

_ACTIVATION_LAYERS = (keras.layers.Activation, keras.layers.PReLU)
_ACTIVATION_NAMES = {name.replace("_", "") for name in ALL_OBJECTS_DICT}


def find_successors(owners: Sequence[keras.layers.Layer]) -> Iterator[Any]:
    """Yield the operations that follow a layer one after the other.

    Args:
        owners: the layers that contain the layer, outermost first, and itself.

    Yields:
        Layers and inline operations, each the only reader of the one before and with no other
        input. Of a layer that is called several times, those that follow on every call. Nothing if
        the layer is no operation of a graph.

    Example:
        >>> layers = [keras.layers.Dense(2), keras.layers.ReLU(), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> list(find_successors((model, layers[0]))) == layers[1:]
        True
    """
    *models, operation = owners
    if models and isinstance(models[-1], Pruned):
        operation = models.pop()
    levels = list(itertools.takewhile(_graph, reversed(models)))[::-1]
    paths = [_after(levels, call.outputs) for call in _calls(levels, operation)]
    for first, *others in zip(*paths, strict=False):
        if any(other is not first for other in others):
            return
        yield first


def is_activation(operation: Any) -> bool:
    """Whether a layer or inline operation is one of Keras's activation functions."""
    if isinstance(operation, _ACTIVATION_LAYERS):
        return True
    # A user's own class may have such a name and do something else.
    is_kerass = type(operation).__module__.startswith("keras.")
    return is_kerass and type(operation).__name__.lower() in _ACTIVATION_NAMES


def _graph(model: keras.layers.Layer) -> Functional | None:
    return getattr(model, "_functional", model) if is_rebuildable(model) else None


def _nodes(model: keras.layers.Layer) -> Iterator[Any]:
    return itertools.chain.from_iterable(_graph(model)._nodes_by_depth.values())


def _calls(levels: Sequence[keras.layers.Layer], operation: Any) -> list[Any]:
    """Return the nodes at which the innermost of some nested models calls an operation."""
    return [node for node in _nodes(levels[-1]) if node.operation is operation] if levels else []


def _after(
    levels: Sequence[keras.layers.Layer], tensors: Sequence[keras.KerasTensor]
) -> Iterator[Any]:
    """Yield what follows an operation's output in the innermost of some nested models."""
    levels = list(levels)
    while len(tensors) == 1:
        [tensor] = tensors
        graph = _graph(levels[-1])
        readers = [n for n in _nodes(levels[-1]) if any(x is tensor for x in n.input_tensors)]
        if any(x is tensor for x in graph.outputs):
            # The end of a nested model: what follows the model follows the tensor.
            model = levels.pop()
            calls = _calls(levels, model)
            if readers or len(calls) != 1:
                return
            tensors = calls[0].outputs
            continue
        if len(readers) != 1 or len(readers[0].input_tensors) != 1:
            return
        operation, tensors = readers[0].operation, readers[0].outputs
        if isinstance(operation, keras.Model) and _graph(operation):
            levels.append(operation)
            tensors = _graph(operation).inputs
        else:
            yield operation

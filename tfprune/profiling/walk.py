"""The layers of a model: every one of them once, with its path, its own weights and its rule.

Pruning wrappers are looked through: their inner layer takes their place, and what they own (masks,
counters) is no parameter of the model.
"""

from dataclasses import dataclass, field
from typing import Any

import keras

from tfprune.profiling.rules import Rule, find_rule
from tfprune.wrappers import MaskHolder, MaskStore, Pruned


@dataclass(eq=False)
class Node:
    """A layer, or an operation between the layers of a functional model.

    Attributes:
        operation: the Keras object.
        path: names from below the model down to it.
        rule: how its MACs are counted, or None.
        weights: the variables of its row, in Keras's order.
        host: the node whose rule counts this one as well, or None.
    """

    operation: Any
    path: str
    rule: Rule | None
    weights: list[Any] = field(default_factory=list)
    host: "Node | None" = None


@dataclass
class Layers:
    """What `find_layers` found.

    Attributes:
        nodes: all layers and operations, parents before their children.
        weight_masks: boolean variable by `id` of the weight that it masks.
    """

    nodes: list[Node] = field(default_factory=list)
    weight_masks: dict[int, Any] = field(default_factory=dict)


def find_layers(model: keras.Model) -> Layers:
    """List the layers of a model.

    Args:
        model: a built Keras model.

    Returns:
        The nodes and the masks, see `Layers`. A weight belongs to the first layer that holds it.
    """
    found = Layers()
    _Walk(found).visit(model, prefix="", hosts=())
    return found


class _Walk:
    """Depth-first, in the order of the model."""

    def __init__(self, found: Layers):
        self._found = found
        self._seen: set[int] = set()
        self._claimed: set[int] = set()

    def visit(self, operation: Any, *, prefix: str, hosts: tuple[Node, ...]) -> None:
        if id(operation) in self._seen:
            return
        self._seen.add(id(operation))
        if isinstance(operation, MaskHolder):
            self._remember_masks(operation)
            if isinstance(operation, Pruned):
                self.visit(operation.layer, prefix=prefix, hosts=hosts)
            return
        # The model's own name would be the same in every path.
        path = prefix + operation.name if self._found.nodes else ""
        host = next((h for h in hosts if isinstance(operation, h.rule.includes)), None)
        node = Node(operation, path or operation.name, find_rule(operation), host=host)
        self._found.nodes.append(node)
        children = _children(operation)
        (host or node).weights.extend(self._own_weights(operation, children))
        if node.rule is not None and node.rule.includes and host is None:
            hosts = (*hosts, node)
        for child in children:
            self.visit(child, prefix=f"{path}/" if path else "", hosts=hosts)

    def _own_weights(self, operation: Any, children: list[Any]) -> list[Any]:
        of_children = {id(weight) for child in children for weight in _held_by(child)}
        own = []
        for weight in getattr(operation, "weights", ()):
            if id(weight) not in of_children and id(weight) not in self._claimed:
                self._claimed.add(id(weight))
                own.append(weight)
        return own

    def _remember_masks(self, holder: MaskHolder) -> None:
        pairs = zip(holder.prunable_weights, holder.weight_masks, strict=True)
        self._found.weight_masks.update((id(weight), mask) for weight, mask in pairs)


def _held_by(child: Any) -> list[Any]:
    """Weights that a child answers for."""
    weights = getattr(child, "weights", [])
    if not isinstance(child, MaskStore):
        return weights
    # A store refers to weights of other layers; only the masks and counters are its own.
    referred = {id(weight) for weight in child.prunable_weights}
    return [weight for weight in weights if id(weight) not in referred]


def _children(operation: Any) -> list[Any]:
    """Sublayers in the order of the graph; for a functional model its inline operations too."""
    children = []
    if isinstance(operation, keras.Model):
        children.extend(getattr(operation, "operations", ()))
    if isinstance(operation, keras.layers.Layer):
        children.extend(operation._flatten_layers(include_self=False, recursive=False))
    return [child for child in dict.fromkeys(children) if isinstance(child, keras.Operation)]

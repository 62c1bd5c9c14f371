"""The shapes of every layer call, seen while the model is traced once.

The model runs on symbolic tensors of a known shape inside a `tf.function`, so nothing is computed
and whatever happens in any `call` is seen: nested models, wrappers, a user's own layers. For that
time each layer object (never a class) gets a `call` that notes the shapes and passes them on.

A layer called in a Python loop is seen each time. Inside a loop of the graph it is seen once; this
is known and corrected for RNN layers, and for no other loop.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from tfprune.errors import UnsupportedModelError
from tfprune.profiling.inputs import ModelInputs
from tfprune.profiling.rules import Call
from tfprune.profiling.walk import Node


def record_calls(model: keras.Model, nodes: list[Node], inputs: ModelInputs) -> dict[int, list]:
    """Trace a model and note the calls of its layers.

    Args:
        model: a built Keras model; left as it was.
        nodes: its layers.
        inputs: what to call it with.

    Returns:
        The list of `Call` by `id` of the layer; calls that another layer's rule counts are left
        out.

    Raises:
        UnsupportedModelError: if a layer that the model calls is not built.
    """
    recorder = _Recorder()

    def forward(*args, **kwargs):
        # Without the scope, layers that add losses or update state would keep symbolic tensors.
        with keras.StatelessScope():
            return model(*args, training=False, **kwargs)

    with recorder.attached_to(nodes):
        function = tf.function(forward, autograph=False)
        function.get_concrete_function(*inputs.args, **inputs.kwargs)
    return recorder.calls


@dataclass
class _Frame:
    """A call in progress."""

    node: Node
    repeats: int
    muted: bool
    steps: int
    cell_seen: bool = False


class _Recorder:
    """Notes calls; `attached_to` says of which layers and for how long."""

    def __init__(self):
        self.calls: dict[int, list[Call]] = {}
        self._stack: list[_Frame] = []
        self._thread = threading.get_ident()

    @contextmanager
    def attached_to(self, nodes: list[Node]) -> Iterator[None]:
        attached = []
        try:
            for node in nodes:
                unbuilt = not getattr(node.operation, "built", True)
                # A quantized layer runs `quantized_call` in the place of `call`.
                for name in ("call", "quantized_call"):
                    own = vars(node.operation)
                    attached.append((own, name, own.get(name)))
                    # Into __dict__, past Keras's attribute tracking.
                    own[name] = self._noting(node, getattr(node.operation, name), unbuilt)
            yield
        finally:
            for own, name, before in reversed(attached):
                if before is None:
                    del own[name]
                else:
                    own[name] = before

    def _noting(self, node: Node, call: Callable, unbuilt: bool) -> Callable:
        signature = inspect.signature(node.operation.call)

        @functools.wraps(call)
        def noting(*args, **kwargs):
            # The same layer may be in use elsewhere; and a `quantized_call` may call `call`.
            nested = any(frame.node is node for frame in self._stack)
            elsewhere = threading.get_ident() != self._thread
            # In a symbolic scope Keras only infers shapes; the call itself follows.
            if elsewhere or nested or in_symbolic_scope():
                return call(*args, **kwargs)
            if unbuilt and node.operation.weights:
                raise UnsupportedModelError(
                    f"Layer {node.path!r} is not built although the model is. Call the model on "
                    "a batch once before profiling it."
                )
            arguments = signature.bind(*args, **kwargs).arguments
            inputs = _shapes(next(iter(arguments.values()), None))
            frame = self._enter(node, inputs)
            self._stack.append(frame)
            try:
                outputs = call(*args, **kwargs)
            finally:
                self._stack.pop()
            if not frame.muted:
                plain = {name: _shape_structure(value) for name, value in arguments.items()}
                noted = Call(inputs, _shapes(outputs), plain, frame.repeats)
                self.calls.setdefault(id(node.operation), []).append(noted)
            return outputs

        return noting

    def _enter(self, node: Node, inputs: tuple) -> _Frame:
        steps = 1
        if isinstance(node.operation, keras.layers.RNN) and inputs:
            steps = inputs[0][1]
        if not self._stack:
            return _Frame(node, repeats=1, muted=False, steps=steps)
        caller = self._stack[-1]
        repeats, muted = caller.repeats, caller.muted
        for frame in self._stack:
            rule = frame.node.rule
            muted = muted or (rule is not None and isinstance(node.operation, rule.includes))
        if isinstance(caller.node.operation, keras.layers.RNN):
            cell = caller.node.operation.cell
            if node.operation is cell:
                # Keras traces a cell once or twice and runs it once per step.
                muted = muted or caller.cell_seen
                caller.cell_seen = True
                repeats *= caller.steps
            elif any(node.operation is stacked for stacked in getattr(cell, "cells", ())):
                # Called outside of the stack, only to size dropout masks.
                muted = True
        return _Frame(node, repeats=repeats, muted=muted, steps=steps)


def _shapes(structure: Any) -> tuple:
    tensors = [x for x in keras.tree.flatten(structure) if _is_tensor(x)]
    return tuple(_shape(tensor) for tensor in tensors)


def _shape_structure(structure: Any) -> Any:
    return keras.tree.map_structure(lambda x: _shape(x) if _is_tensor(x) else x, structure)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _shape(tensor: Any) -> tuple[int | None, ...]:
    shape = tf.TensorShape(tensor.shape)
    # Even the rank may be unknown; one unknown axis says as much.
    return (None,) if shape.rank is None else tuple(shape.as_list())

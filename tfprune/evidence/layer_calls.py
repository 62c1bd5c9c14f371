"""The calls of a model's layers, seen while it runs: what went in, what came out.

The model runs eagerly, in inference mode and in a stateless scope, so that none of its state
changes. For that time each watched layer object (never a class) gets a `call` that passes on and
reports; whatever contains the layer - nested models, wrappers, a user's own block - need not know.
`tfprune.evidence.layer_inputs` makes matrices of what is reported.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import tensorflow as tf

from tfprune.errors import UnsupportedModelError
from tfprune.evidence.probe import Probe

OnCall = Callable[[keras.layers.Layer, Any, Any], None]


@contextmanager
def watch_layers(
    model: keras.layers.Layer, layers: Iterable[keras.layers.Layer], on_call: OnCall
) -> Iterator[None]:
    """Report each call of some layers of a model, as long as the context lasts.

    Calls inside of a graph (`tf.function`, `vectorized_map`) have no values and are left out.

    Args:
        model: the model that contains the layers.
        layers: the layers to watch.
        on_call: function of `(layer, inputs, outputs)`, called after each call of a layer in this
            thread. `inputs` is the first argument of the call, `outputs` what it returned; for a
            recurrent cell they are the pairs `(inputs, states)` and `(output, new_states)`.
    """
    watch = _Watch(on_call)
    with ExitStack() as stack:
        for layer in dict.fromkeys(layers):
            stack.enter_context(_overridden(layer, "call", watch.reporting(layer)))
        for part in dict.fromkeys(model._flatten_layers()):
            if isinstance(part, keras.layers.RNN):
                stack.enter_context(watch.real_steps_only(part))
        yield


def run_watched(
    model: keras.layers.Layer, x: Any, layers: Iterable[keras.layers.Layer], on_call: OnCall
) -> Any:
    """Run a model on one batch and report the calls of some of its layers.

    Args:
        model: a built model; left as it is.
        x: a batch of inputs, as the model takes it.
        layers: as in `watch_layers`.
        on_call: as in `watch_layers`.

    Returns:
        The model's outputs.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> def report(layer, inputs, outputs):
        ...     print(inputs.shape, outputs.shape)
        >>> outputs = run_watched(model, np.ones((5, 3), "float32"), model.layers, report)
        (5, 3) (5, 2)
    """
    with watch_layers(model, layers, on_call), keras.StatelessScope():
        return model(x, training=False)


def observe(probe: Probe, on_call: Callable[[int, Any, Any], None]) -> None:
    """Run a probe's model on its batches and report the calls of the layers of its weights.

    Args:
        probe: model, weights and data.
        on_call: function of `(index, inputs, outputs)`, called for each weight of a layer that was
            called; `index` is the weight's place in `probe.weights`.

    Raises:
        InvalidArgumentError: if there is no data.
        UnsupportedModelError: if a layer is not called.
    """
    uncalled = {weight.path for weight in probe.weights}

    def report(layer: keras.layers.Layer, inputs: Any, outputs: Any) -> None:
        for index, weight in enumerate(probe.weights):
            if weight.layer is layer:
                uncalled.discard(weight.path)
                on_call(index, inputs, outputs)

    layers = [weight.layer for weight in probe.weights]
    for x, _, _ in probe.batches():
        run_watched(probe.model, x, layers, report)
    if uncalled:
        raise UnsupportedModelError(
            "The layers of these weights are not called when the model runs on the data, or only "
            f"inside of a graph, where there are no values to see: {sorted(uncalled)}. Leave them "
            "out with `exclude=`; if the model uses tf.function, call "
            "`tf.config.run_functions_eagerly(True)` before."
        )


class _Watch:
    """Replaces `call`s; silent while Keras only tries a step out."""

    def __init__(self, on_call: OnCall) -> None:
        self._on_call = on_call
        self._muted = False
        self._thread = threading.get_ident()

    def reporting(self, layer: keras.layers.Layer) -> Callable:
        call = layer.call
        signature = inspect.signature(call)

        @functools.wraps(call)
        def reporting(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            arguments = signature.bind(*args, **kwargs).arguments
            inputs = next(iter(arguments.values()), None)
            if "states" in arguments:
                inputs = (inputs, arguments["states"])
            # Keras may only infer shapes; the call itself follows.
            in_graph = any(map(tf.is_symbolic_tensor, keras.tree.flatten((inputs, outputs))))
            elsewhere = threading.get_ident() != self._thread
            if not (self._muted or in_graph or elsewhere):
                self._on_call(layer, inputs, outputs)
            return outputs

        return reporting

    @contextmanager
    def real_steps_only(self, rnn: keras.layers.RNN) -> Iterator[None]:
        """Leave out the steps that an RNN layer runs only to learn shapes, and run all others."""
        call, step = rnn.call, rnn.cell.call
        on_trial = False

        @functools.wraps(call)
        def calling(*args: Any, **kwargs: Any) -> Any:
            nonlocal on_trial
            # A loop that is not unrolled tries the cell once before it begins.
            on_trial = not rnn.unroll
            return call(*args, **kwargs)

        @functools.wraps(step)
        def stepping(*args: Any, **kwargs: Any) -> Any:
            nonlocal on_trial
            muted = self._muted
            self._muted, on_trial = muted or on_trial, False
            try:
                return step(*args, **kwargs)
            finally:
                self._muted = muted

        with ExitStack() as stack:
            stack.enter_context(_overridden(rnn, "call", calling))
            stack.enter_context(_overridden(rnn.cell, "call", stepping))
            # Calls stacked cells once more, to size the dropout masks that only training needs.
            stack.enter_context(_overridden(rnn, "_maybe_config_dropout_masks", lambda *args: None))
            # cuDNN computes a whole sequence at once, without calling the cell.
            stack.enter_context(_overridden(rnn, "use_cudnn", False))
            yield


@contextmanager
def _overridden(layer: keras.layers.Layer, name: str, value: Any) -> Iterator[None]:
    own = vars(layer)
    had, before = name in own, own.get(name)
    # Into __dict__, past Keras's attribute tracking.
    own[name] = value
    try:
        yield
    finally:
        if had:
            own[name] = before
        else:
            del own[name]

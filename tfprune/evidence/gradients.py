"""Evidence from derivatives of the loss: gradients, their squares, and a Hessian product.

All of it is an average over the data of a `Probe`, with dropout off and batch normalization at its
moving statistics. Nothing of the model changes: it runs inside of a `keras.StatelessScope`, which
keeps statistics, seeds, counters and metrics as they are. A frozen weight has evidence like any
other. The loss is the one of `Probe.compute_loss`, so a compiled model's regularizers are part of
it.

Per weight that is looked at, a float32 number is held of each batch, and a total from the second
one on; for the Hessian product also the direction, g.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.errors import InvalidArgumentError, UnsupportedModelError
from tfprune.evidence.probe import Probe

Batch = tuple[Any, Any, Any]

EXAMPLES_PER_BATCH = 32
"""How many examples of a batch get a gradient of their own, where the evidence is per example."""

# Registered as not differentiable, so that its derivative would pass for zero.
_CONSTANT_BY_MISTAKE = ("ResizeBilinearGrad",)


def collect_gradient(probe: Probe) -> dict[str, list[np.ndarray]]:
    """Gather "gradient": the gradient of the loss, the mean over the batches.

    Example:
        >>> from tfprune.pruned_weight import PrunedWeight
        >>> from tfprune.prunable import find_candidates
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        >>> model.set_weights([np.array([[3.0]])])
        >>> weights = [PrunedWeight(c.variable, c.layout) for c in find_candidates(model)]
        >>> data = np.array([[1.0], [2.0]]), np.array([[0.0], [0.0]])
        >>> probe = Probe(model, weights, data, loss=keras.losses.MeanSquaredError())
        >>> collect_gradient(probe)["gradient"][0].tolist()  # mean of 2 * x * (3 * x)
        [[15.0]]
    """
    return {"gradient": _mean(probe, compile_gradient(probe), probe.batches())}


def collect_squared_batch_gradient(probe: Probe) -> dict[str, list[np.ndarray]]:
    """Gather "squared_batch_gradient": the squared gradient of a batch, the mean over batches."""
    mean = _mean(probe, compile_gradient(probe), probe.batches(), squared=True)
    return {"squared_batch_gradient": mean}


def collect_squared_gradient(probe: Probe) -> dict[str, list[np.ndarray]]:
    """Gather "squared_gradient": the squared gradient of one example, the mean over examples.

    That is the diagonal of the empirical Fisher information. For the examples see `examples`.
    """
    mean = _mean(probe, compile_gradient(probe), examples(probe), squared=True)
    return {"squared_gradient": mean}


def collect_hessian_gradient(probe: Probe) -> dict[str, list[np.ndarray]]:
    """Gather "hessian_gradient": H g, with the Hessian H and the gradient g of the mean loss.

    The data is read twice, first for g, then for H g. Both are about the probe's weights alone.

    Raises:
        UnsupportedModelError: if the model has an operation without a second derivative.
    """
    gradient = collect_gradient(probe)["gradient"]
    # Of length 1, which 16-bit floats can hold.
    length = float(tf.linalg.global_norm(gradient)) or 1.0
    gradient.reverse()
    # Tensors of the function's closure are passed by reference; arrays would be copied into it.
    direction = [tf.convert_to_tensor(gradient.pop() / length) for _ in probe.weights]

    def product(batch: Batch, scale: tf.Tensor) -> list[tf.Tensor]:
        with _watching(probe) as tape, _exact_moments():
            gradients = _gradient(probe, batch, scale)
        if any(op.type in _CONSTANT_BY_MISTAKE for op in gradients[0].graph.get_operations()):
            raise _no_second_derivative(probe, ", ".join(_CONSTANT_BY_MISTAKE))
        try:
            return tape.gradient(
                gradients,
                _variables(probe),
                output_gradients=direction,
                # The loss may be linear in a weight.
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
        except LookupError as error:
            raise _no_second_derivative(probe, str(error)) from error

    products = _mean(probe, _compiled(probe, product), probe.batches())
    for array in products:
        np.multiply(array, length, out=array)
    return {"hessian_gradient": products}


def examples(probe: Probe) -> Iterator[Batch]:
    """Yield the first `EXAMPLES_PER_BATCH` examples of each batch, each as a batch of one."""
    for batch in probe.batches():
        size = keras.tree.flatten(batch)[0].shape[0]
        for index in range(min(size, EXAMPLES_PER_BATCH)):
            yield keras.tree.map_structure(
                lambda part, i=index: None if part is None else part[i : i + 1], batch
            )


def compile_gradient(probe: Probe) -> Callable[[Batch], list[np.ndarray]]:
    """Return the gradient of the loss as a compiled function of a batch.

    The function returns one float32 array per weight of the probe, read-only. It raises
    `UnsupportedModelError` if the loss does not depend on a weight, and `InvalidArgumentError` if
    the gradient is not finite.
    """
    return _compiled(probe, functools.partial(_gradient, probe))


def _mean(
    probe: Probe,
    derivative: Callable[[Batch], list[np.ndarray]],
    batches: Iterator[Batch],
    *,
    squared: bool = False,
) -> list[np.ndarray]:
    """Return the mean over batches of a derivative of the loss, or of its square by element."""
    raised = np.square if squared else np.copy
    totals: list[np.ndarray] = []
    count = 0
    for batch in batches:
        count += 1
        # From the end, so that each array goes as soon as it has been added.
        arrays = derivative(batch)[::-1]
        if count == 1:
            totals = [raised(arrays.pop()) for _ in probe.weights]
            continue
        for total in totals:
            np.add(total, raised(arrays.pop()), out=total)
    for total in totals:
        np.divide(total, count, out=total)
    return totals


def _compiled(
    probe: Probe, derivative: Callable[[Batch, tf.Tensor], list[tf.Tensor]]
) -> Callable[[Batch], list[np.ndarray]]:
    """Compile a derivative of `scale` times the loss, and undo the scale.

    In 16-bit floats small derivatives would vanish, so the loss is scaled, by as much as leaves
    them finite: Keras's own loss scaling belongs to the optimizer, which is not asked here.
    """
    half = any(layer.compute_dtype == "float16" for layer in probe.model._flatten_layers())
    scale = 2.0**15 if half else 1.0

    @tf.function(autograph=False, reduce_retracing=True)
    def scaled(batch: Batch, scale: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        arrays = [tf.cast(array, tf.float32) / scale for array in derivative(batch, scale)]
        return arrays, tf.stack([tf.math.is_finite(tf.reduce_sum(array)) for array in arrays])

    def unscaled(batch: Batch) -> list[np.ndarray]:
        nonlocal scale
        while True:
            arrays, finite = scaled(batch, tf.constant(scale))
            if np.all(finite):
                return [np.asarray(array) for array in arrays]
            if scale <= 1:
                paths = [w.path for w, f in zip(probe.weights, finite, strict=True) if not f]
                raise InvalidArgumentError(
                    f"The gradient of the loss is not finite in {', '.join(paths)}: look for NaN "
                    "or infinite numbers in the data and in the weights."
                )
            scale /= 2

    return unscaled


def _gradient(probe: Probe, batch: Batch, scale: tf.Tensor) -> list[tf.Tensor]:
    """Return the gradient of `scale` times the loss, dense tensors."""
    with _watching(probe) as tape:
        # Regularizers see what the scope maps, so all variables that may have one are in it.
        state = [(variable, variable.value) for variable in probe.model.trainable_variables]
        with keras.StatelessScope(state, collect_losses=True):
            loss = probe.compute_loss(*batch)
    scale = tf.cast(scale, loss.dtype)
    gradients = tape.gradient(loss, _variables(probe), output_gradients=scale)
    unused = [w.path for w, g in zip(probe.weights, gradients, strict=True) if g is None]
    if unused:
        raise UnsupportedModelError(
            f"The loss does not depend on {', '.join(unused)}, so there is no gradient to judge "
            "them by: leave them out with `exclude`, or choose a criterion without gradients."
        )
    # An Embedding's gradient comes as the rows that the batch used.
    return [tf.cast(tf.convert_to_tensor(gradient), tf.float32) for gradient in gradients]


def _no_second_derivative(probe: Probe, cause: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{probe.model.name!r} contains an operation that TensorFlow cannot differentiate twice "
        f"({cause}): choose a criterion that needs gradients alone, such as 'snip'."
    )


@contextlib.contextmanager
def _exact_moments() -> Iterator[None]:
    """Make `tf.nn.moments`, which LayerNormalization calls, right in the second derivative too.

    TensorFlow's own stops the gradient at the mean within the variance. That changes no first
    derivative, but it does change the second.
    """

    def moments(
        x: Any, axes: Any, shift: Any = None, keepdims: bool = False, name: str | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        mean = tf.reduce_mean(x, axes, keepdims=keepdims)
        return mean, tf.math.reduce_variance(x, axes, keepdims=keepdims)

    original, tf.nn.moments = tf.nn.moments, moments
    try:
        yield
    finally:
        tf.nn.moments = original


def _watching(probe: Probe) -> tf.GradientTape:
    """Return a tape that watches the probe's weights, frozen or not, and nothing else."""
    tape = tf.GradientTape(watch_accessed_variables=False)
    with tape:
        for variable in _variables(probe):
            tape.watch(variable)
    return tape


def _variables(probe: Probe) -> list[tf.Variable]:
    return [weight.variable.value for weight in probe.weights]

"""Training that every toolkit repeats alike: the same batches in the same order, test, weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, toolkits

Examples = tuple[np.ndarray, np.ndarray]
"""Images, float32 of shape (n, ...), and labels, int64 of shape (n,)."""


def fit(
    model: Any,
    toolkit: toolkits.Toolkit,
    examples: Examples,
    *,
    batch: int,
    epochs: int,
    rate: float,
    order_seed: int,
    callbacks: Sequence[Any] = (),
) -> float:
    """Train with Adam, the learning rate falling to zero by a cosine.

    Args:
        model: model of the toolkit's Keras; logits for integer labels.
        toolkit: what `toolkits.load` returned.
        examples: the training images and labels.
        batch: images in a batch.
        epochs: passes over the examples.
        rate: first learning rate.
        order_seed: seed of the order of the batches.
        callbacks: callbacks of the toolkit's Keras.

    Returns:
        Seconds in `fit`.
    """
    import tensorflow as tf

    images, labels = (tf.constant(array) for array in examples)
    order = data.batch_order(len(labels), batch=batch, epochs=epochs, seed=order_seed)
    batches = tf.data.Dataset.from_tensor_slices(order).map(
        lambda indices: (tf.gather(images, indices), tf.gather(labels, indices))
    )
    schedule = toolkit.keras.optimizers.schedules.CosineDecay(rate, len(order))
    toolkits.compile_for_labels(model, toolkit, schedule)
    start = time.perf_counter()
    model.fit(
        batches.prefetch(2),
        epochs=epochs,
        steps_per_epoch=len(order) // epochs,
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
    )
    return time.perf_counter() - start


def accuracy(model: Any, examples: Examples) -> float:
    """Return the fraction of examples whose highest logit is the label's."""
    images, labels = examples
    logits = model.predict(images, batch_size=500, verbose=0)
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def save_weights(model: Any, path: Path) -> None:
    """Write all weights, by layer name and position, so that either Keras can load them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {
        f"{layer.name}/{position}": array
        for layer in model.layers
        for position, array in enumerate(layer.get_weights())
    }
    np.savez(path, **weights)


def load_weights(model: Any, path: Path) -> None:
    """Load what `save_weights` wrote into a model with the same layer names."""
    with np.load(path) as weights:
        for layer in model.layers:
            count = len(layer.get_weights())
            layer.set_weights([weights[f"{layer.name}/{position}"] for position in range(count)])

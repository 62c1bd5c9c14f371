"""tfprune and its peer behind one face, so that both are driven by the same lines.

Importing tfmot switches the whole process to the legacy tf_keras: one process, one toolkit.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

NAMES = ("tfprune", "tfmot")


@dataclass(frozen=True)
class Toolkit:
    """One pruning toolkit with the Keras that it works on.

    Args:
        name: "tfprune" or "tfmot".
        keras: the Keras module, `keras` or `tf_keras`.
        prune: function `(model, initial, final, *, begin_step, end_step, frequency)` that returns
            the model to train, with a cubic schedule over all kernels of Conv2D, Dense and LSTM.
        callback: function without arguments that returns the callback `fit` needs.
        strip: function that returns the plain model after training.
    """

    name: str
    keras: ModuleType
    prune: Callable[..., Any]
    callback: Callable[[], Any]
    strip: Callable[[Any], Any]


def load(name: str) -> Toolkit:
    """Import one toolkit; a process can hold only one.

    Args:
        name: one of `NAMES`.
    """
    return {"tfprune": _tfprune, "tfmot": _tfmot}[name]()


def kernels(model: Any) -> list[Any]:
    """Return the prunable weights of a plain model: what both toolkits prune in it.

    Args:
        model: plain model of either Keras, with Conv2D, Dense, LSTM and normalization layers.
    """
    return [
        weight
        for layer in model.layers
        for weight in layer.trainable_weights
        if len(weight.shape) > 1
    ]


def compile_for_labels(model: Any, toolkit: Toolkit, learning_rate: Any = 1e-3) -> None:
    """Compile for integer labels and logits, with Adam.

    Args:
        model: model of the toolkit's Keras.
        toolkit: what `load` returned.
        learning_rate: a float or a schedule of the toolkit's Keras.
    """
    model.compile(
        optimizer=toolkit.keras.optimizers.Adam(learning_rate),
        loss=toolkit.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def _tfprune() -> Toolkit:
    import keras

    import tfprune

    def prune(model, initial, final, **steps):
        schedule = tfprune.schedules.PolynomialDecay(initial, final, **steps)
        return tfprune.prune(model, schedule=schedule)

    return Toolkit("tfprune", keras, prune, tfprune.callbacks.UpdateMasks, tfprune.strip)


def _tfmot() -> Toolkit:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    import tensorflow_model_optimization as tfmot
    import tf_keras

    sparsity = tfmot.sparsity.keras

    def prune(model, initial, final, **steps):
        schedule = sparsity.PolynomialDecay(initial, final, **steps)
        return sparsity.prune_low_magnitude(model, pruning_schedule=schedule)

    return Toolkit("tfmot", tf_keras, prune, sparsity.UpdatePruningStep, sparsity.strip_pruning)

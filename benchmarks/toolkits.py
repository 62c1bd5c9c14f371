"""tfprune and its peer behind one face, so that both are driven by the same lines.

Importing tfmot switches the whole process to the legacy tf_keras: one process, one toolkit.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

NAMES = ("tfprune", "tfmot")


@dataclass(frozen=True)
class Toolkit:
    """One pruning toolkit with the Keras that it works on.

    Args:
        name: "tfprune" or "tfmot".
        keras: the Keras module, `keras` or `tf_keras`.
        prune: function `(model, initial, final, *, begin_step, end_step, frequency)` that returns
            the model to train, with a cubic schedule over all its `kernels`.
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
        model: plain model of either Keras, with Conv2D, Dense, LSTM, MultiHeadAttention and
            normalization layers.
    """
    return [kernel for _, kernel in _kinds_and_kernels(model)]


def zeros_by_kind(model: Any) -> dict[str, tuple[int, int]]:
    """Return the number of zeros and the number of weights in each kind of kernel.

    Args:
        model: as in `kernels`.

    Returns:
        `(zeros, size)` for the layer classes of the model, those of recurrent cells in two:
        "LSTM input" and "LSTM recurrent".
    """
    counts: dict[str, tuple[int, int]] = {}
    for kind, kernel in _kinds_and_kernels(model):
        values = np.asarray(kernel)
        zeros, size = counts.get(kind, (0, 0))
        counts[kind] = (zeros + int(np.count_nonzero(values == 0)), size + values.size)
    return counts


def _kinds_and_kernels(model: Any) -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        kernels = [weight for weight in layer.trainable_weights if "kernel" in weight.name]
        for kernel in kernels:
            kind = type(layer).__name__
            if kind == "LSTM":
                kind += " recurrent" if "recurrent" in kernel.name else " input"
            yield kind, kernel


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

"""Sums over the training steps, taken inside of the compiled step: what `Movement` and RigL need.

Keras hands the gradients to `optimizer.apply`, in every kind of training step and after any loss
scale has been divided out; that is where they are seen. The sums are variables of the model, so
they are saved with it, and a step costs no call from Python.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfprune.optimizer_state import optimizer_parts
from tfprune.pruned_weight import PrunedWeight


def sum_in_training(
    optimizer: Any, weights: Sequence[PrunedWeight], increment: Callable[[Any, Any], Any]
) -> bool:
    """Make every step of an optimizer add to the weights' accumulators.

    Args:
        optimizer: a Keras optimizer; one that wraps another passes the task on to it.
        weights: weights with accumulators.
        increment: function of `(values, gradient)` that returns what is added.

    Returns:
        Whether something was changed, so that a training step that is traced already misses it.
    """
    sums = {id(weight.variable): weight.accumulator for weight in weights}
    changed = False
    for part in optimizer_parts(optimizer):
        if hasattr(part, "inner_optimizer") or hasattr(part, "optimizers"):
            continue
        if getattr(part.apply, "sums", None) != sums:
            part.apply = _summing(type(part).apply.__get__(part), sums, increment)
            changed = True
    return changed


def _summing(
    apply: Callable[..., Any],
    sums: dict[int, keras.Variable],
    increment: Callable[[Any, Any], Any],
) -> Callable[..., Any]:
    optimizer = apply.__self__

    @functools.wraps(apply)
    def summing(grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        known = optimizer._trainable_variables
        variables = list(known if trainable_variables is None else trainable_variables)
        for gradient, variable in zip(grads, variables, strict=True):
            accumulator = sums.get(id(variable))
            if accumulator is None or gradient is None:
                continue
            # An Embedding's gradient comes as slices.
            dense = tf.cast(tf.convert_to_tensor(gradient), accumulator.dtype)
            values = tf.cast(tf.convert_to_tensor(variable), accumulator.dtype)
            accumulator.value.assign_add(increment(values, dense))
        return apply(grads, variables)

    summing.sums = sums
    return summing

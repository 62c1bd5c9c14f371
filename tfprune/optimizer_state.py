"""Optimizer state of pruned weights: momenta start afresh, averages hold the zeros.

A weight that is pruned and later grows back must not jump by a stale momentum, so the slots of
pruned weights go back to their initial value at every mask update. Slots that are not of the
weight's shape (Adafactor's factored moments) are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

# A list that follows an optimizer's variables but does not hold moments of them.
_NOT_MOMENTS = ("_model_variables_moving_average",)


def reset_pruned_slots(optimizer: Any, variable: keras.Variable, kept: np.ndarray) -> None:
    """Set the optimizer's slots of pruned weights to their initial value.

    Args:
        optimizer: a Keras optimizer, built or not, or `None`.
        variable: the pruned weight.
        kept: boolean array of its shape, false where the slots are reset.
    """
    for slot, initial in _slots(optimizer, variable):
        slot.assign(keras.ops.where(kept, slot, keras.ops.cast(initial, slot.dtype)))


def mask_average(optimizer: Any, variable: keras.Variable, mask: Any) -> None:
    """Set the optimizer's moving average (`use_ema=True`) of pruned weights to zero.

    Args:
        optimizer: a Keras optimizer, built or not, or `None`.
        variable: the pruned weight.
        mask: its boolean mask.
    """
    for inner in optimizer_parts(optimizer):
        averages = getattr(inner, "_model_variables_moving_average", None) or ()
        for average, of in zip(averages, getattr(inner, "_trainable_variables", ()), strict=False):
            if of is variable and average is not None:
                average.assign(keras.ops.where(mask, average, keras.ops.zeros((), average.dtype)))


def keeps_averages(optimizer: Any) -> bool:
    """Whether an optimizer, or one inside of it, keeps moving averages (`use_ema=True`)."""
    return any(getattr(part, "use_ema", False) for part in optimizer_parts(optimizer))


def _slots(optimizer: Any, variable: keras.Variable) -> Iterator[tuple[keras.Variable, float]]:
    for inner in optimizer_parts(optimizer):
        known = getattr(inner, "_trainable_variables", None) or []
        index = next((i for i, v in enumerate(known) if v is variable), None)
        if index is None:
            continue
        for name, slots in slot_lists(inner):
            slot = slots[index]
            if (
                name not in _NOT_MOMENTS
                and isinstance(slot, keras.Variable)
                and slot.shape == variable.shape
            ):
                yield slot, _initial_value(inner, name)


def slot_lists(optimizer: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield the lists of an optimizer that hold something for each of its variables, by name."""
    count = len(getattr(optimizer, "_trainable_variables", None) or ())
    for name, slots in vars(optimizer).items():
        is_list = isinstance(slots, list) and name != "_trainable_variables"
        if is_list and count and len(slots) == count:
            yield name, slots


def _initial_value(optimizer: Any, slot_name: str) -> float:
    """Adagrad and Ftrl start their accumulators above zero, and divide by them."""
    if slot_name == "_accumulators":
        return getattr(optimizer, "initial_accumulator_value", 0.0)
    return 0.0


def optimizer_parts(optimizer: Any) -> Iterator[Any]:
    """Yield the optimizer and those inside of it (LossScaleOptimizer, MultiOptimizer)."""
    if optimizer is None:
        return
    yield optimizer
    for inner in [
        getattr(optimizer, "inner_optimizer", None),
        *getattr(optimizer, "optimizers", ()),
    ]:
        yield from optimizer_parts(inner)

"""Carry an optimizer's state over to a shrunk model: momenta of the slices that stayed."""

from __future__ import annotations

import keras

from tfprune.errors import InvalidArgumentError
from tfprune.optimizer_state import optimizer_parts, slot_lists
from tfprune.structured.graph import ChannelGraph
from tfprune.structured.history import ShrinkHistory
from tfprune.structured.rebuild import Kept


def carry_optimizer(
    original: keras.Model, shrunk: keras.Model, history: ShrinkHistory
) -> keras.optimizers.Optimizer:
    """Return an optimizer for the shrunk model that goes on where the original's is.

    To start afresh instead, compile the shrunk model with a new optimizer.

    Args:
        original: a compiled model that has been trained.
        shrunk: the model without some channels.
        history: what was cut, from `history_of(shrunk)`.

    Returns:
        A new optimizer with the step count, the learning rate and the slots of what is left.
        Slots of another shape than their weight, such as Adafactor's, start afresh.

    Raises:
        InvalidArgumentError: if the original has no optimizer state, or the history does not fit.

    Example:
        >>> import numpy as np, tfprune
        >>> layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> model.compile("adam", "mse")
        >>> history = model.fit(np.ones((32, 4)), np.ones((32, 2)), verbose=0)
        >>> small = tfprune.shrink(model, 0.5)
        >>> optimizer = carry_optimizer(model, small, tfprune.structured.history_of(small))
        >>> small.compile(optimizer, "mse")
        >>> int(optimizer.iterations)
        1
    """
    old = getattr(original, "optimizer", None)
    if old is None or not old.built:
        raise InvalidArgumentError(
            f"{original.name!r} has no optimizer state: compile and train it first, or compile the "
            "shrunk model with a new optimizer."
        )
    graph = ChannelGraph(original, layer_norm=history.layer_norm)
    # The factor of narrower attention queries is left out: momenta follow within some steps.
    kept = Kept(graph, history.dead(graph))
    new = type(old).from_config(old.get_config())
    new.build(shrunk.trainable_variables)
    for before, after in zip(optimizer_parts(old), optimizer_parts(new), strict=True):
        after.iterations.assign(before.iterations)
        known = getattr(before, "_trainable_variables", ())
        for name, slots in slot_lists(before):
            for variable, slot, target in zip(known, slots, getattr(after, name), strict=True):
                if isinstance(slot, keras.Variable) and slot.shape == variable.shape:
                    target.assign(kept.slices(variable, keras.ops.convert_to_numpy(slot)))
    return new

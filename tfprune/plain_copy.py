"""A plain copy of a model: the weights copied, the pruning wrappers gone, the zeros in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfprune.cloning import LayerCopier, is_rebuildable, rebuild
from tfprune.pruner import find_holders
from tfprune.wrappers import MaskHolder, Pruned


def plain_copy(
    model: keras.layers.Layer,
) -> tuple[keras.layers.Layer, dict[int, keras.Variable]]:
    """Copy a model without its pruning wrappers, with their masks applied.

    Args:
        model: a built Functional or Sequential model, pruned or not, or a `Pruned` layer.

    Returns:
        The copy, and the copy of each weight by the `id` of the original.
    """
    copier = LayerCopier()
    if isinstance(model, Pruned):
        plain = copy_built(model.layer, copier)
        copies = {id(model): plain}
    else:
        plain, copies = rebuild(model, _copy_unwrapped, copier)
    copy_of = _copied_variables(model, copies)
    _zero_pruned_weights(find_holders(model), copy_of)
    return plain, copy_of


def copy_built(layer: keras.layers.Layer, copier: LayerCopier) -> keras.layers.Layer:
    """Copy a built layer together with its weights."""
    new = copier.copy(layer)
    if not new.built:
        new.build_from_config(layer.get_build_config())
    copier.transfer_state()
    return new


def zero_pruned(variable: keras.Variable, mask: Any) -> None:
    """Set a variable to zero where its boolean mask is false."""
    variable.assign(keras.ops.where(mask, variable, keras.ops.zeros((), variable.dtype)))


def _copy_unwrapped(layer: keras.layers.Layer, copier: LayerCopier) -> keras.layers.Layer:
    return copier.copy(layer.layer if isinstance(layer, Pruned) else layer)


def _copied_variables(
    model: keras.layers.Layer, copies: dict[int, keras.layers.Layer]
) -> dict[int, keras.Variable]:
    """Return the copy of each weight of a model by the `id` of the original."""
    copy_of: dict[int, keras.Variable] = {}
    for layer in model._flatten_layers():
        if id(layer) in copies and not is_rebuildable(layer):
            bare = layer.layer if isinstance(layer, Pruned) else layer
            pairs = zip(bare.weights, copies[id(layer)].weights, strict=True)
            copy_of.update((id(old), new) for old, new in pairs)
    return copy_of


def _zero_pruned_weights(holders: Sequence[MaskHolder], copy_of: dict[int, keras.Variable]) -> None:
    """Apply each holder's masks to the copies of its weights."""
    for holder in holders:
        for variable, mask in zip(holder.prunable_weights, holder.weight_masks, strict=True):
            if id(variable) in copy_of:
                zero_pruned(copy_of[id(variable)], mask)

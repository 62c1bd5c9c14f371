"""Normalization layers: their statistics are what a cut may change."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.structured.rules.registry import Site, rule
from tfprune.structured.wiring import Book, Count, Wiring

LAYER_NORM = "layer normalization computes over them; layer_norm='allow' lets them go"
"""Why channels under a LayerNormalization are frozen."""


@rule(keras.layers.BatchNormalization)
def batch_normalization(site: Site, book: Book) -> list[Wiring | None]:
    """Keep the channels apart, at its moving statistics."""
    layer, [wiring], [shape] = site.layer, site.inputs, site.shapes
    if wiring is None or wiring.axis != layer.axis % len(shape):
        return [wiring]
    for variable in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance):
        book.claim(variable, 0, wiring.ids, site.path)
    return [wiring]


@rule(keras.layers.LayerNormalization)
def layer_normalization(site: Site, book: Book) -> list[Wiring | None]:
    """Freeze the channels it computes over, unless the user has allowed to cut them."""
    layer, [wiring], [shape] = site.layer, site.inputs, site.shapes
    given = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    axes = [axis % len(shape) for axis in given]
    if wiring is None or wiring.axis not in axes:
        return [wiring]
    if book.layer_norm != "allow":
        book.labels.freeze(wiring.ids, f"{site.path}: {LAYER_NORM}")
        return [wiring]
    for variable in (layer.gamma, layer.beta):
        book.claim(variable, axes.index(wiring.axis), wiring.ids, site.path)
    book.reads_kept.add(id(layer))
    return [wiring]


@rule(keras.layers.GroupNormalization)
def group_normalization(site: Site, book: Book) -> list[Wiring | None]:
    """Take whole groups away: what is left of a group would have other statistics."""
    layer, [wiring], [shape] = site.layer, site.inputs, site.shapes
    if wiring is None:
        return [None]
    if wiring.axis != layer.axis % len(shape):
        # Statistics are taken over every axis but the batch.
        book.labels.freeze(wiring.ids, f"{site.path} normalizes over them")
        return [wiring]
    grouped = wiring.ids.reshape(layer.groups, -1)
    book.labels.unite(grouped, grouped[:, :1])
    for variable in (layer.gamma, layer.beta):
        book.claim(variable, 0, wiring.ids, site.path)
    first = grouped[:, 0]

    def change(config: dict[str, Any], count: Count) -> dict[str, Any]:
        return {**config, "groups": count(first)}

    book.changes[id(layer)] = change
    return [wiring]

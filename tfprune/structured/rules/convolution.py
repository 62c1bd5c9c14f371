"""Convolutions: plain, grouped, transposed, depthwise and separable ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_conv_transpose import BaseConvTranspose
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv
from keras.src.layers.convolutional.base_separable_conv import BaseSeparableConv

from tfprune.structured.rules.registry import Site, after_activation, rule
from tfprune.structured.wiring import Book, Count, Wiring


@rule(BaseConv)
def convolution(site: Site, book: Book) -> list[Wiring | None]:
    """Contract the channels; kernel `(..., inputs / groups, filters)`."""
    layer = site.layer
    axis, ids = _input(site, book)
    made = book.made(layer.kernel, -1)
    groups = layer.groups

    def change(config: dict[str, Any], count: Count) -> dict[str, Any]:
        return {**config, "filters": count(made)}

    if groups == 1:
        book.claim(layer.kernel, -2, ids, site.path, reads=True)
    else:
        inputs, outputs = ids.reshape(groups, -1), made.reshape(groups, -1)
        if 1 in (inputs.shape[1], outputs.shape[1]):
            # As good as depthwise: a group goes as a whole, with all that it reads and makes.
            book.labels.unite(inputs, inputs[:, :1])
            book.labels.unite(outputs, inputs[:, :1])
            ones = inputs[:, 0]

            def change(config: dict[str, Any], count: Count) -> dict[str, Any]:
                return {**config, "filters": count(made), "groups": count(ones)}

        else:
            # All groups become narrower alike.
            book.labels.unite(inputs, inputs[:1])
            book.labels.unite(outputs, outputs[:1])
            book.claim(layer.kernel, -2, inputs[0], site.path, reads=True)
    book.claim(layer.kernel, -1, made, site.path, makes=True)
    book.claim(layer.bias, 0, made, site.path)
    after_activation(site, layer.activation, made, book)
    book.changes[id(layer)] = change
    return [Wiring(axis, made)]


@rule(BaseConvTranspose)
def transposed(site: Site, book: Book) -> list[Wiring | None]:
    """Contract the channels; kernel `(..., filters, inputs)`."""
    layer = site.layer
    axis, ids = _input(site, book)
    book.claim(layer.kernel, -1, ids, site.path, reads=True)
    made = book.made(layer.kernel, -2)
    book.claim(layer.kernel, -2, made, site.path, makes=True)
    book.claim(layer.bias, 0, made, site.path)
    after_activation(site, layer.activation, made, book)
    book.changes[id(layer)] = lambda config, count: {**config, "filters": count(made)}
    return [Wiring(axis, made)]


@rule(BaseDepthwiseConv)
def depthwise(site: Site, book: Book) -> list[Wiring | None]:
    """Keep the channels apart; kernel `(..., inputs, multiplier)`."""
    layer = site.layer
    axis, ids = _input(site, book)
    book.claim(layer.kernel, -2, ids, site.path)
    made = np.repeat(ids, layer.depth_multiplier)
    book.claim(layer.bias, 0, made, site.path)
    after_activation(site, layer.activation, made, book)
    return [Wiring(axis, made)]


@rule(BaseSeparableConv)
def separable(site: Site, book: Book) -> list[Wiring | None]:
    """Depthwise, then contract; kernels `(..., inputs, multiplier)`, `(..., between, filters)`."""
    layer = site.layer
    axis, ids = _input(site, book)
    book.claim(layer.depthwise_kernel, -2, ids, site.path)
    between = np.repeat(ids, layer.depth_multiplier)
    book.claim(layer.pointwise_kernel, -2, between, site.path, reads=True)
    made = book.made(layer.pointwise_kernel, -1)
    book.claim(layer.pointwise_kernel, -1, made, site.path, makes=True)
    book.claim(layer.bias, 0, made, site.path)
    after_activation(site, layer.activation, made, book)
    book.changes[id(layer)] = lambda config, count: {**config, "filters": count(made)}
    return [Wiring(axis, made)]


def _input(site: Site, book: Book) -> tuple[int, np.ndarray]:
    """Return the axis of the channels, and their ids."""
    [wiring], [shape] = site.inputs, site.shapes
    axis = 1 if site.layer.data_format == "channels_first" else len(shape) - 1
    return axis, book.along(wiring, axis, shape[axis], f"{site.path} convolves over them")

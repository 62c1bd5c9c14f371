"""Attention: heads, the width of queries and keys, the width of values, inputs and outputs.

The product of queries and keys is a sum over their common width, so a part of it goes from both;
the factor 1/sqrt(width) that the narrower layer then uses is made up for in the query's weights.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfprune.structured.rules.registry import Site, rule
from tfprune.structured.wiring import Book, Count, Wiring


@rule(keras.layers.MultiHeadAttention, several=True)
def multi_head_attention(site: Site, book: Book) -> list[Wiring | None]:
    """Heads, key width and value width are units of their own."""
    layer = site.layer
    query, value, key = _arguments(site, book)
    heads = book.made(layer.query_dense.kernel, 1)
    width = book.made(layer.query_dense.kernel, 2)
    value_width = book.made(layer.value_dense.kernel, 2)
    _claim_projection(
        layer.query_dense, query, heads, width, path=site.path, book=book, reads_width=True
    )
    _claim_projection(layer.key_dense, key, heads, width, path=site.path, book=book)
    _claim_projection(layer.value_dense, value, heads, value_width, path=site.path, book=book)
    if layer._use_gate:
        _claim_projection(layer._gate_dense, query, heads, value_width, path=site.path, book=book)
    _scale_queries(layer.query_dense, width, book)
    kernel = layer.output_dense.kernel
    book.claim(kernel, 0, heads, site.path, reads=True)
    book.claim(kernel, 1, value_width, site.path, reads=True)
    scores = _scores(site, heads, book)
    single = len(kernel.shape) == 3
    made = book.made(kernel, 2) if single else None
    if single:
        book.claim(kernel, 2, made, site.path, makes=True)
        book.claim(layer.output_dense.bias, 0, made, site.path)

    def change(config: dict[str, Any], count: Count) -> dict[str, Any]:
        given = config["output_shape"]
        if single and (given is not None or count(made) != count(query)):
            given = (count(made),)
        return {
            **config,
            "num_heads": count(heads),
            "key_dim": count(width),
            "value_dim": count(value_width),
            "output_shape": given,
        }

    book.changes[id(layer)] = change
    last = len(site.output_shapes[0]) - 1
    return [Wiring(last, made) if single else None, *scores]


@rule(keras.layers.GroupQueryAttention, several=True)
def group_query_attention(site: Site, book: Book) -> list[Wiring | None]:
    """A head of keys and values goes with the query heads that share it; one width for all."""
    layer = site.layer
    query, value, key = _arguments(site, book)
    shared = book.made(layer._key_dense.kernel, 1)
    heads = np.repeat(shared, layer.num_repeats)
    width = book.made(layer._query_dense.kernel, 2)
    _claim_projection(
        layer._query_dense, query, heads, width, path=site.path, book=book, reads_width=True
    )
    _claim_projection(layer._key_dense, key, shared, width, path=site.path, book=book)
    _claim_projection(layer._value_dense, value, shared, width, path=site.path, book=book)
    if layer.use_gate:
        _claim_projection(layer._gate_dense, query, heads, width, path=site.path, book=book)
    _scale_queries(layer._query_dense, width, book)
    kernel = layer._output_dense.kernel
    book.claim(kernel, 0, heads, site.path, reads=True)
    book.claim(kernel, 1, width, site.path, reads=True)
    # The layer makes as many features as its query has.
    made = book.made(kernel, 2)
    book.labels.unite(made, query)
    book.claim(kernel, 2, made, site.path, makes=True)
    book.claim(layer._output_dense.bias, 0, made, site.path)

    def change(config: dict[str, Any], count: Count) -> dict[str, Any]:
        return {
            **config,
            "num_query_heads": count(heads),
            "num_key_value_heads": count(shared),
            "head_dim": count(width),
        }

    book.changes[id(layer)] = change
    last = len(site.output_shapes[0]) - 1
    return [Wiring(last, made), *_scores(site, heads, book)]


def _arguments(site: Site, book: Book) -> list[np.ndarray]:
    """Return the ids of query, value and key; the key is the value unless it is given."""
    found = {}
    for wiring, shape, role in zip(site.inputs, site.shapes, site.roles, strict=True):
        reason = f"{site.path} attends along them"
        found[role] = book.along(wiring, len(shape) - 1, shape[-1], reason)
    return [found["query"], found["value"], found.get("key", found["value"])]


def _claim_projection(
    dense: keras.layers.EinsumDense,
    ids: np.ndarray,
    heads: np.ndarray,
    width: np.ndarray,
    *,
    path: str,
    book: Book,
    reads_width: bool = False,
) -> None:
    """Claim a projection to heads: kernel `(inputs, heads, width)`, bias `(heads, width)`."""
    book.claim(dense.kernel, 0, ids, path, reads=True)
    for variable, axis in ((dense.kernel, 1), (dense.bias, 0)):
        book.claim(variable, axis, heads, path, makes=True)
        # Where the query is zero, so is its part of the product: a slice that is read.
        book.claim(variable, axis + 1, width, path, makes=True, reads=reads_width)


def _scale_queries(dense: keras.layers.EinsumDense, width: np.ndarray, book: Book) -> None:
    size = len(width)
    for variable in (dense.kernel, dense.bias):
        if variable is not None:
            book.weights[id(variable)].scale = lambda count: (count(width) / size) ** 0.5


def _scores(site: Site, heads: np.ndarray, book: Book) -> list[Wiring | None]:
    """Return the wiring of attention scores, if the layer returns them."""
    shapes = site.output_shapes[1:]
    if any(len(shape) != 4 for shape in shapes):
        book.labels.freeze(heads, f"{site.path} returns scores over several axes")
        return [None for _ in shapes]
    # (batch, heads, queries, keys)
    return [Wiring(1, heads) for _ in shapes]

"""Dense, EinsumDense and Embedding."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.structured.rules.registry import Site, after_activation, rule
from tfprune.structured.wiring import Book, Count, Wiring


@rule(keras.layers.Dense)
def dense(site: Site, book: Book) -> list[Wiring | None]:
    """Contract the last axis. Channels on another axis pass through, each by itself."""
    layer, [wiring], [shape] = site.layer, site.inputs, site.shapes
    last = len(shape) - 1
    if wiring is not None and wiring.axis != last:
        if layer.activation is not None:
            after_activation(site, layer.activation, wiring.ids, book)
        return [wiring]
    ids = book.along(wiring, last, shape[-1], f"what {site.path} is fed has no channels")
    book.claim(layer.kernel, 0, ids, site.path, reads=True)
    made = book.made(layer.kernel, 1)
    book.claim(layer.kernel, 1, made, site.path, makes=True)
    book.claim(layer.bias, 0, made, site.path)
    after_activation(site, layer.activation, made, book)
    book.changes[id(layer)] = lambda config, count: {**config, "units": count(made)}
    return [Wiring(last, made)]


@rule(keras.layers.EinsumDense)
def einsum_dense(site: Site, book: Book) -> list[Wiring | None]:
    """Follow the letters of the equation. Of several axes that it makes, the last has channels."""
    layer, [wiring], [shape], [out_shape] = (
        site.layer,
        site.inputs,
        site.shapes,
        site.output_shapes,
    )
    source, kernel, target = _letters(layer.equation, len(shape), len(out_shape))
    letter = None if wiring is None else source[wiring.axis]
    if letter is not None and letter in kernel:
        book.claim(layer.kernel, kernel.index(letter), wiring.ids, site.path, reads=True)
    if letter is not None and letter in target:
        # Kept apart from the others all through, with or without weights of its own.
        axis, made = target.index(letter), wiring.ids
    else:
        own = [c for c in target if c in kernel and c not in source]
        if not own:
            return [None]
        letter = own[-1]
        axis = target.index(letter)
        made = book.made(layer.kernel, kernel.index(letter))
        book.claim(layer.kernel, kernel.index(letter), made, site.path, makes=True)
    after_activation(site, layer.activation, made, book)
    if layer.bias is not None:
        at = [c for c in target if c in layer.bias_axes]
        # The bias has its axes in the output's order, then ones for what is broadcast.
        if letter in at:
            book.claim(layer.bias, at.index(letter), made, site.path)

    def change(config: dict[str, Any], count: Count) -> dict[str, Any]:
        given = config["output_shape"]
        sizes = [given] if isinstance(given, int) else list(given)
        place = axis - (len(out_shape) - len(sizes))
        if sizes[place] is not None:
            sizes[place] = count(made)
        return {**config, "output_shape": tuple(sizes)}

    book.changes[id(layer)] = change
    return [Wiring(axis, made)]


@rule(keras.layers.Embedding)
def embedding(site: Site, book: Book) -> list[Wiring | None]:
    """Make channels; the rows are words, and stay."""
    layer, [wiring], [out_shape] = site.layer, site.inputs, site.output_shapes
    if wiring is not None:
        book.labels.freeze(wiring.ids, f"{site.path} looks them up")
    made = book.made(layer.embeddings, 1)
    book.claim(layer.embeddings, 1, made, site.path, makes=True)
    book.changes[id(layer)] = lambda config, count: {**config, "output_dim": count(made)}
    return [Wiring(len(out_shape) - 1, made)]


def _letters(equation: str, rank: int, out_rank: int) -> tuple[str, str, str]:
    """Return the letters of input, kernel and output; digits stand for those of an ellipsis."""
    operands, target = equation.replace(" ", "").split("->")
    source, kernel = operands.split(",")
    if "..." in source:
        hidden = "".join(map(str, range(rank - len(source.replace("...", "")))))
        source, target = source.replace("...", hidden), target.replace("...", hidden)
    return source, kernel, target

"""Recurrent layers: the units of a cell, its gates, its states; Bidirectional, TimeDistributed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfprune.structured.rules.registry import Site, after_activation, rule, rule_for
from tfprune.structured.wiring import Book, Change, Count, Wiring

_GATES = {keras.layers.LSTM: 4, keras.layers.GRU: 3, keras.layers.SimpleRNN: 1}


@rule(*_GATES, several=True)
def recurrent(site: Site, book: Book) -> list[Wiring | None]:
    """A unit is a column of every gate, and a row of the recurrent kernel."""
    layer, cell = site.layer, site.layer.cell
    gates = next(count for cls, count in _GATES.items() if isinstance(layer, cls))
    wiring = site.inputs[0]
    features = site.shapes[0][-1]
    ids = book.along(wiring, 2, features, f"{site.path} goes along them as time steps")
    book.claim(cell.kernel, 0, ids, site.path, reads=True)
    units = book.made(cell.recurrent_kernel, 0)
    made = np.tile(units, gates)
    book.claim(cell.kernel, 1, made, site.path)
    book.claim(cell.recurrent_kernel, 0, units, site.path, reads=True, makes=True)
    book.claim(cell.recurrent_kernel, 1, made, site.path)
    book.claim(cell.bias, -1, made, site.path)
    after_activation(site, cell.activation, units, book)
    after_activation(site, getattr(cell, "recurrent_activation", None), units, book)
    if layer.stateful:
        book.labels.freeze(units, f"{site.path} keeps its states between batches")
    for other, role in zip(site.inputs[1:], site.roles[1:], strict=True):
        if role == "initial_state" and other is not None:
            book.labels.unite(units, other.ids)
        elif role == "initial_state":
            book.labels.freeze(units, f"{site.path} starts from a state that has no channels")
    book.changes[id(layer)] = lambda config, count: {**config, "units": count(units)}
    return [Wiring(len(shape) - 1, units) for shape in site.output_shapes]


@rule(keras.layers.Bidirectional, several=True)
def bidirectional(site: Site, book: Book) -> list[Wiring | None]:
    """Two layers, whose units lie side by side, or are merged one by one."""
    layer = site.layer
    parts = (layer.forward_layer, layer.backward_layer)
    if any(rule_for(part) is not recurrent for part in parts) or len(site.inputs) > 1:
        return _without_rule(site, book)
    outputs = []
    for name, part in zip(("forward", "backward"), parts, strict=True):
        shape = site.output_shapes[0]
        inner = site.inside(part, path=f"{site.path}/{name}", output_shapes=[shape])
        outputs.append(recurrent(inner, book)[0].ids)
    forward, backward = outputs
    changes = [book.changes[id(part)] for part in parts]

    def change(config: dict[str, Any], count: Count) -> dict[str, Any]:
        names = ("layer", "backward_layer")
        inner = {n: _inner(config[n], c, count) for n, c in zip(names, changes, strict=True)}
        return {**config, **inner}

    book.changes[id(layer)] = change
    last = len(site.output_shapes[0]) - 1
    if layer.return_state:
        book.labels.freeze(np.concatenate(outputs), f"{site.path} returns its states")
    if layer.merge_mode in ("sum", "mul", "ave"):
        book.labels.unite(forward, backward)
        return [Wiring(last, forward), *[None] * (len(site.output_shapes) - 1)]
    if layer.merge_mode == "concat":
        joined = Wiring(last, np.concatenate(outputs))
        return [joined, *[None] * (len(site.output_shapes) - 1)]
    first = [Wiring(last, forward), Wiring(last, backward)]
    return [*first, *[None] * (len(site.output_shapes) - 2)]


@rule(keras.layers.TimeDistributed)
def time_distributed(site: Site, book: Book) -> list[Wiring | None]:
    """The layer inside sees one time step at a time: every axis is one less."""
    inner_layer, [wiring] = site.layer.layer, site.inputs
    inner_rule = rule_for(inner_layer)
    if inner_rule is None or (wiring is not None and wiring.axis == 1):
        return _without_rule(site, book)
    inner = site.inside(
        inner_layer,
        inputs=[None if wiring is None else replace(wiring, axis=wiring.axis - 1)],
        shapes=[(shape[0], *shape[2:]) for shape in site.shapes],
        output_shapes=[(shape[0], *shape[2:]) for shape in site.output_shapes],
    )
    outputs = inner_rule(inner, book)
    if id(inner_layer) in book.changes:
        change: Change = book.changes[id(inner_layer)]
        book.changes[id(site.layer)] = lambda config, count: {
            **config,
            "layer": _inner(config["layer"], change, count),
        }
    return [None if out is None else replace(out, axis=out.axis + 1) for out in outputs]


def _without_rule(site: Site, book: Book) -> list[Wiring | None]:
    reason = f"there is no rule for {site.path} around such a layer"
    return book.frozen(site.inputs, site.output_shapes, reason)


def _inner(serialized: dict[str, Any], change: Change, count: Count) -> dict[str, Any]:
    """Apply a change to a serialized layer."""
    return {**serialized, "config": change(serialized["config"], count)}

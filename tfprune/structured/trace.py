"""What has no rule: operations are probed, and the weights of unknown layers guessed and tested.

Nothing is believed here that a test has not shown. Whatever cannot be run alone, mixes channels or
does not compute the same when it is narrower is frozen, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.cloning import without_build_configs
from tfprune.structured.bit_codes import MIXED, NONE, channel_axis, slice_units
from tfprune.structured.operations import is_kerass, is_local, narrow_operation
from tfprune.structured.probe import OperationProbe, ProbeError
from tfprune.structured.walk import Call
from tfprune.structured.wiring import Book, Change, Count, Wiring

_SMALL = (3, 8)
"""Sizes to probe local operations at, one after the other, before the model's own."""

_DEAD_SHARES = (0.4, 0.2)
"""Shares of the channels to take away in a test, beside the first and the last one alone."""


class Tracer:
    """Probes calls, and remembers what it found for calls that are alike.

    Args:
        book: where it is written down.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._known: dict[Any, Any] = {}

    def wire(
        self, call: Call, tensors: Sequence[keras.KerasTensor], wirings: Sequence[Wiring | None]
    ) -> list[Wiring | None]:
        """Return the channels of a call's outputs, and freeze or unite those of its inputs.

        Args:
            call: a call of an operation, or of a layer that has no rule.
            tensors: its symbolic inputs.
            wirings: their channels.
        """
        labels = self._book.labels
        shapes = [tensor.shape for tensor in call.node.outputs]
        free = [wiring is not None and not labels.is_frozen(wiring.ids).all() for wiring in wirings]
        if not any(free):
            given = [reason for w in wirings if w for reason in labels.reasons(w.ids)]
            reason = given[0] if given else f"{call.path} makes them from no channels"
            return self._book.frozen([], shapes, reason)
        sizes = _SMALL if is_local(call.operation) else ()
        error = None
        for size in (*sizes, None):
            probe = OperationProbe(call, tensors, wirings, size)
            try:
                return self._wire(call, probe, wirings, free, size)
            except ProbeError as found:
                error = found
        reason = f"{call.path} ({type(call.operation).__name__}): {error}"
        return self._book.frozen(wirings, shapes, reason)

    def _wire(
        self,
        call: Call,
        probe: OperationProbe,
        wirings: Sequence[Wiring | None],
        free: Sequence[bool],
        size: int | None,
    ) -> list[Wiring | None]:
        labels, name = self._book.labels, f"{call.path} ({type(call.operation).__name__})"
        units: list[Any] = [None] * len(wirings)
        names: list[Any] = [None] * len(wirings)
        for index, wiring in enumerate(wirings):
            if free[index]:
                names[index], units[index] = np.unique(
                    labels.roots(wiring.ids), return_inverse=True
                )
        key = _key(call, wirings, units, size)
        codes = self._remembered((key, "trace"), key, lambda: probe.trace(units))
        found = [
            [
                None if code is None else np.append(known, [MIXED, NONE])[code]
                for code, known in zip(per_input, names, strict=True)
            ]
            for per_input in codes
        ]
        for index, wiring in enumerate(wirings):
            if free[index] and any((per[index] == MIXED).any() for per in found):
                labels.freeze(wiring.ids, f"{name} mixes them")
        outputs = self._outputs(call, found, wirings)
        moving = [w for w, is_free in zip(wirings, free, strict=True) if is_free]
        if all(labels.is_frozen(wiring.ids).all() for wiring in moving):
            return outputs
        joint = [labels.roots(w.ids) for w in [*wirings, *outputs] if w is not None]
        places = np.unique(np.concatenate(joint), return_inverse=True)[1]
        dead = labels.is_frozen(np.concatenate(joint))
        if call.operation_has_weights:
            if self._narrows_layer(call, probe, wirings, outputs):
                return outputs
        elif self._remembered(
            (key, places.tobytes(), dead.tobytes()),
            key,
            lambda: self._narrows(call, probe, wirings, outputs),
        ):
            return outputs
        elif len(wirings) == 1 and not call.in_sequential:
            selected = probe.selects(wirings[0].axis)
            if selected is not None:
                self._book.selections[id(call.node)] = selected
                return [Wiring(axis, wirings[0].ids[slots]) for axis, slots in selected]
        self._freeze_joined(name, wirings, free, moving)
        return outputs

    def _freeze_joined(
        self, name: str, wirings: Sequence[Wiring | None], free: Sequence[bool], moving: Any
    ) -> None:
        """Freeze the inputs of a call that cannot be narrowed; maybe for what another one stays."""
        labels = self._book.labels
        fixed = [w for w, is_free in zip(wirings, free, strict=True) if w and not is_free]
        reasons = [reason for w in fixed for reason in labels.reasons(w.ids)]
        reason = f"{name} does not compute the same on fewer channels"
        if reasons:
            reason = reasons[0]
        for wiring in moving:
            labels.freeze(wiring.ids, reason)

    def _outputs(
        self, call: Call, found: Any, wirings: Sequence[Wiring | None]
    ) -> list[Wiring | None]:
        """Return the wirings of the outputs, uniting what lies together in them."""
        labels, outputs = self._book.labels, []
        pairs = zip(wirings, found[0], strict=True)
        preferred = next(wiring.axis for wiring, codes in pairs if codes is not None) - 1
        for tensor, codes in zip(call.node.outputs, found, strict=True):
            traced = [code for code in codes if code is not None]
            units = np.full(traced[0].shape, NONE)
            for code in traced:
                both = (units >= 0) & (code >= 0)
                pairs = np.unique(np.stack([units[both], code[both]]), axis=1)
                labels.unite(pairs[0], pairs[1])
                units = np.where(units < 0, np.maximum(code, NONE), units)
            some = units >= 0
            if not some.any():
                outputs += self._book.frozen([], [tensor.shape], f"{call.path} mixes channels")
                continue
            units[some] = labels.roots(units[some])
            axis = channel_axis(units, min(preferred, units.ndim - 1))
            if tensor.shape[axis + 1] != units.shape[axis]:
                raise ProbeError("the axis of its channels has no fixed size")
            pairs, ids = slice_units(units, axis)
            labels.unite(pairs[:, 0], pairs[:, 1])
            constant = ids < 0
            ids = ids.copy()
            ids[constant] = labels.new(
                int(constant.sum()), f"{call.path} makes them from no channels"
            )
            outputs.append(Wiring(axis + 1, ids))
        return outputs

    def _narrows(
        self, call: Call, probe: OperationProbe, wirings: Sequence[Any], outputs: Sequence[Any]
    ) -> bool:
        tries = self._tries(wirings, outputs)

        def run_narrow(inputs: list[Any], number: int) -> list[Any]:
            axis = size = None
            if len(outputs) == 1:
                axis, kept = tries[number][1][0]
                size = int(kept.sum())
            operation = narrow_operation(call.operation, axis, size) or call.operation
            return call.run([keras.ops.convert_to_tensor(x) for x in inputs], operation)

        return probe.narrows([t[0] for t in tries], [t[1] for t in tries], run_narrow)

    def _narrows_layer(
        self, call: Call, probe: OperationProbe, wirings: Sequence[Any], outputs: Sequence[Any]
    ) -> bool:
        """Guess which axes of a layer's weights hold channels; claim them if a test agrees."""
        if outputs[0] is None:
            return False
        layer, ids = call.operation, outputs[0].ids
        tries = self._tries(wirings, outputs)
        axes = [
            _guess_axis(variable, call.node.outputs[0], outputs[0]) for variable in layer.weights
        ]
        for change in (None, _replacing(len(ids), ids)):

            def run_narrow(
                inputs: list[Any], number: int, change: Change | None = change
            ) -> list[Any]:
                kept = tries[number][1][0][1]
                config = without_build_configs(layer.get_config())
                if change is not None:
                    config = change(config, lambda _: int(kept.sum()))
                narrow = type(layer).from_config(config)
                tensors = [keras.ops.convert_to_tensor(x) for x in inputs]
                call.run(tensors, narrow)
                for old, new, axis in zip(layer.weights, narrow.weights, axes, strict=True):
                    values = keras.ops.convert_to_numpy(old)
                    new.assign(values if axis is None else np.compress(kept, values, axis=axis))
                return call.run(tensors, narrow)

            if probe.narrows([t[0] for t in tries], [t[1] for t in tries], run_narrow):
                for variable, axis in zip(layer.weights, axes, strict=True):
                    if axis is not None:
                        self._book.claim(variable, axis, ids, call.path)
                if change is not None:
                    self._book.changes[id(layer)] = change
                return True
        return False

    def _tries(
        self, wirings: Sequence[Wiring | None], outputs: Sequence[Wiring | None]
    ) -> list[tuple[list[Any], list[Any]]]:
        """Return which channels stay in inputs and outputs, for several cuts to try."""
        labels = self._book.labels
        inputs = [None if w is None else labels.roots(w.ids) for w in wirings]
        results = [None if w is None else labels.roots(w.ids) for w in outputs]
        every = np.unique(np.concatenate([r for r in [*inputs, *results] if r is not None]))
        free = every[~labels.is_frozen(every)]
        random = np.random.default_rng(0)
        sets = [free[random.random(len(free)) < share] for share in _DEAD_SHARES]
        for roots in (inputs[0], results[0]):
            if roots is not None and np.isin(roots, free).any():
                sets += [roots[np.isin(roots, free)][[0]], roots[np.isin(roots, free)][[-1]]]
        tries = []
        for dead in sets:
            kept = [None if r is None else ~np.isin(r, dead) for r in [*inputs, *results]]
            if len(dead) and all(k is None or k.any() for k in kept):
                ends = [
                    None if wiring is None else (wiring.axis, k)
                    for wiring, k in zip(outputs, kept[len(inputs) :], strict=True)
                ]
                tries.append((kept[: len(inputs)], ends))
        return tries

    def _remembered(self, key: Any, cacheable: Any, compute: Any) -> Any:
        if cacheable is None:
            return compute()
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


def _key(call: Call, wirings: Sequence[Any], units: Sequence[Any], size: int | None) -> Any:
    """Return what makes two calls alike; `None` if that cannot be told."""
    arguments = keras.tree.flatten((call.node.arguments.args, call.node.arguments.kwargs))
    plain = [a for a in arguments if not isinstance(a, keras.KerasTensor)]
    # What a function of the user's does, its name and code do not tell: it may have a closure.
    function = getattr(call.operation, "activation", getattr(call.operation, "function", None))
    if call.operation_has_weights or not (is_kerass(call.operation) and is_kerass(function)):
        return None
    if not all(isinstance(a, str | int | float | bool | None) for a in plain):
        return None
    try:
        config = dict(call.operation.get_config())
    except Exception:
        return None
    config.pop("name", None)
    order = [id(argument) for argument in arguments]
    same = [order.index(id(tensor)) for tensor in call.node.input_tensors]
    return (
        type(call.operation),
        repr(config),
        repr([a if not isinstance(a, keras.KerasTensor) else None for a in arguments]),
        tuple(same),
        tuple(
            (t.shape if size is None else len(t.shape), t.dtype) for t in call.node.input_tensors
        ),
        tuple(None if w is None else (w.axis, len(w.ids)) for w in wirings),
        tuple(None if u is None else u.tobytes() for u in units),
        size,
    )


def _guess_axis(variable: keras.Variable, tensor: keras.KerasTensor, wiring: Wiring) -> int | None:
    """Return the axis of a weight that is as long as the channels; the aligned one of several."""
    rank = len(variable.shape)
    axes = [axis for axis, size in enumerate(variable.shape) if size == len(wiring.ids)]
    aligned = wiring.axis - (len(tensor.shape) - rank)
    return aligned if aligned in axes else axes[-1] if axes else None


def _replacing(size: int, ids: np.ndarray) -> Change:
    """Return the change of a config in which every argument of that size counts channels."""

    def change(config: dict[str, Any], count: Count) -> dict[str, Any]:
        return {k: count(ids) if type(v) is int and v == size else v for k, v in config.items()}

    return change

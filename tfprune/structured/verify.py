"""`verify`: prove that a shrunk model computes what the original does without the cut channels.

The original is run with every weight that reads a cut channel set to zero there, the shrunk model
as it is, and every tensor of the one is compared with that of the other, not only the outputs:
one weight cut at the wrong place is often too little to be seen at the end. Zeroing what makes the
channels instead would be wrong behind an activation with f(0) != 0.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask

from tfprune.errors import InvalidArgumentError, VerificationError
from tfprune.structured.graph import ChannelGraph, check_shrinkable
from tfprune.structured.history import ShrinkHistory
from tfprune.structured.rebuild import Kept
from tfprune.structured.walk import Walk, walk

_OPEN_SIZE = 32
"""Size of an axis that the model leaves open."""


@dataclass(frozen=True)
class ShrinkCheck:
    """What `verify` found.

    Args:
        difference: the largest difference, relative to the largest number in its tensor.
        node: path of the operation where it is.
        compared: how many tensors were compared.
    """

    difference: float
    node: str
    compared: int

    def __str__(self) -> str:
        return (
            f"{self.compared} tensors compared, largest relative difference "
            f"{self.difference:.1e} at {self.node}"
        )


def verify(
    original: keras.Model,
    shrunk: keras.Model,
    history: ShrinkHistory,
    data: Any = None,
    *,
    tolerance: float = 1e-4,
) -> ShrinkCheck:
    """Compare a shrunk model with the original, tensor by tensor.

    Channels cut under a LayerNormalization (`layer_norm="allow"`) change its statistics; there the
    original is run with the statistics of the channels that stay.

    Args:
        original: the model before.
        shrunk: the model after.
        history: what was cut, from `history_of(shrunk)`.
        data: inputs for the model, a batch; random ones by default.
        tolerance: largest difference allowed, relative to the largest number of a tensor.

    Returns:
        The `ShrinkCheck`.

    Raises:
        InvalidArgumentError: if the history does not fit the models.
        VerificationError: if a tensor differs by more.

    Example:
        >>> import tfprune
        >>> layers = [keras.layers.Dense(4, "relu"), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> small = tfprune.shrink(model, 0.5)
        >>> verify(model, small, tfprune.structured.history_of(small)).compared
        2
    """
    graph = ChannelGraph(original, layer_norm=history.layer_norm)
    dead = history.dead(graph)
    check_shrinkable(shrunk)
    after = walk(shrunk)
    kept = Kept(graph, dead)
    if [kept.shape(n) for n in graph.walk.inputs] != [after.tensors[n].shape for n in after.inputs]:
        raise InvalidArgumentError("The two models do not take the same inputs.")
    # A selection of channels becomes another operation; what reads it is compared.
    selections = graph.book.selections
    same = [call for call in graph.walk.calls if id(call.node) not in selections]
    missing = Counter(c.path for c in same) - Counter(c.path for c in after.calls)
    if missing:
        raise InvalidArgumentError(
            f"The shrunk model has no {next(iter(missing))!r}, so it was not made from "
            f"{original.name!r}."
        )
    inputs = _inputs(original, data)
    found = _run(after, inputs)
    partners = {call.path: call.operation for call in after.calls}
    compared = {number for call in same for number in call.outputs}
    worst = ShrinkCheck(0.0, "no node", 0)
    for (path, place), (number, value) in _run_reference(graph, kept, inputs, partners).items():
        if number not in compared:
            continue
        wiring = graph.wirings[number]
        wanted = value
        if wiring is not None:
            wanted = np.compress(kept.mask(wiring.ids), value, axis=wiring.axis)
        difference = _difference(wanted, found[path, place][1])
        worst = ShrinkCheck(
            *max((worst.difference, worst.node), (difference, path)), worst.compared + 1
        )
    if not worst.difference <= tolerance:
        raise VerificationError(
            f"The shrunk model does not compute what the original does without the cut channels: "
            f"{worst}, and {tolerance:.0e} is allowed."
        )
    return worst


Values = dict[tuple[str, int], tuple[int, np.ndarray]]


def _run(walked: Walk, inputs: list[Any]) -> Values:
    """Run a model call by call; return each tensor by the path and place of its call."""
    values = dict(zip(walked.inputs, inputs, strict=True))
    results: Values = {}
    calls: Counter = Counter()
    with keras.StatelessScope():
        for call in walked.calls:
            outputs = call.run([values[number] for number in call.inputs])
            for number, output in zip(call.outputs, outputs, strict=True):
                values[number] = output
                results[call.path, calls[call.path]] = number, _array(output)
                calls[call.path] += 1
    return results


def _run_reference(
    graph: ChannelGraph, kept: Kept, inputs: list[Any], partners: dict[str, Any]
) -> Values:
    """Run the original with zeros wherever a cut channel would be read."""
    state = []
    for entry in graph.book.weights.values():
        values = keras.ops.convert_to_numpy(entry.variable).copy()
        for axis in entry.reads:
            mask = kept.mask(entry.ids[axis])
            values[(slice(None),) * axis + (~mask,)] = 0
        if entry.reads:
            state.append((entry.variable, keras.ops.convert_to_tensor(values)))
    walked = graph.walk
    tensors = dict(zip(walked.inputs, inputs, strict=True))
    results: Values = {}
    calls: Counter = Counter()
    with keras.StatelessScope(state):
        for call in walked.calls:
            given = [tensors[number] for number in call.inputs]
            if id(call.operation) in graph.book.reads_kept:
                wiring = graph.wirings[call.inputs[0]]
                mask = kept.mask(wiring.ids)
                outputs = [_on_kept(call, partners[call.path], given[0], wiring.axis, mask)]
            else:
                outputs = call.run(given)
            for number, output in zip(call.outputs, outputs, strict=True):
                tensors[number] = output
                results[call.path, calls[call.path]] = number, _array(output)
                calls[call.path] += 1
    return results


def _on_kept(call: Any, partner: Any, tensor: Any, axis: int, mask: np.ndarray) -> Any:
    """Run the shrunk model's layer on the channels that stay; the others come out as zero."""
    [output] = call.run([keras.ops.take(tensor, np.flatnonzero(mask), axis=axis)], partner)
    places = np.where(mask, np.cumsum(mask) - 1, mask.sum())
    empty = keras.ops.zeros_like(keras.ops.take(output, [0], axis=axis))
    whole = keras.ops.take(keras.ops.concatenate([output, empty], axis=axis), places, axis=axis)
    if get_keras_mask(tensor) is not None:
        set_keras_mask(whole, get_keras_mask(tensor))
    return whole


def _inputs(model: keras.Model, data: Any) -> list[Any]:
    if data is not None:
        return [keras.ops.convert_to_tensor(x) for x in keras.tree.flatten(data)]
    random = np.random.default_rng(0)
    words = [
        layer.input_dim
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Embedding)
    ]
    tensors = []
    for tensor in model.inputs:
        shape = [tensor.shape[0] or 2, *(size or _OPEN_SIZE for size in tensor.shape[1:])]
        if tensor.dtype == "bool":
            values = random.random(shape) < 0.5
        elif "int" in tensor.dtype:
            values = random.integers(0, min(words, default=8), shape)
        else:
            values = random.normal(size=shape)
        tensors.append(keras.ops.convert_to_tensor(values, tensor.dtype))
    return tensors


def _difference(wanted: np.ndarray, found: np.ndarray) -> float:
    if wanted.shape != found.shape:
        return float("inf")
    if wanted.dtype.kind not in "fc":
        return 0.0 if np.array_equal(wanted, found) else float("inf")
    if not np.array_equal(np.isfinite(wanted), np.isfinite(found)):
        return float("inf")
    finite = np.isfinite(wanted)
    change = np.max(np.abs(wanted - found), initial=0, where=finite)
    return float(change / (np.max(np.abs(wanted), initial=0, where=finite) + 1e-12))


def _array(tensor: Any) -> np.ndarray:
    array = keras.ops.convert_to_numpy(tensor)
    # bfloat16 is not numpy's own.
    return array if array.dtype.kind in "biu" else array.astype(np.float32)

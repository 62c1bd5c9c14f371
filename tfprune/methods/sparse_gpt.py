"""`sparse_gpt`: one-shot pruning without training, layer by layer, with what is kept made to fit.

The walk and the aim are SparseGPT's: in the order of execution, each layer is pruned so that its
outputs on a few calibration examples change least, given the inputs that the layers pruned before
it produce. How one kernel is pruned is told in `tfprune.methods.reconstruction`: instead of
SparseGPT's one sweep over the inputs, in rounds, which leaves less error.

Held are the calibration inputs, and for one layer at a time a few float32 matrices
`(taps * inputs, taps * inputs)`. The model runs on all calibration batches once per layer, up to
that layer.

Source: Frantar & Alistarh (2023), "SparseGPT: Massive Language Models Can Be Accurately Pruned in
One-Shot".
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import keras
import numpy as np

from tfprune.cloning import is_rebuildable
from tfprune.errors import InvalidArgumentError, InvalidTypeError, UnsupportedModelError
from tfprune.evidence import Probe
from tfprune.evidence.layer_calls import run_watched
from tfprune.evidence.layer_inputs import RECURRENT_CELLS, input_matrix, unsupported_inputs
from tfprune.mask_computation import compute_masks, ready_plan
from tfprune.methods.reconstruction import DAMPING, prune_and_reconstruct
from tfprune.model_checks import check_built, check_layer, subclassed_model_error
from tfprune.plain_copy import plain_copy
from tfprune.prunable import find_candidates
from tfprune.pruned_weight import PrunedWeight
from tfprune.pruning_plan import PruningPlan
from tfprune.schedules import ConstantSparsity
from tfprune.selection import Selector, choose_weights


def sparse_gpt(
    model: keras.Model,
    sparsity: float,
    data: Any,
    *,
    pattern: Any = "unstructured",
    allocation: Any = "uniform",
    damping: float = DAMPING,
    max_rows: int = 2**15,
    verbose: bool | str = "auto",
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
) -> keras.Model:
    """Return a plain, sparse copy of a model whose kept weights make up for the pruned ones.

    Args:
        model: a built Functional or Sequential model, pruned or not.
        sparsity: fraction of zeros, in [0, 1).
        data: calibration examples, a few hundred: arrays `x` or `(x, y)`, a `tf.data.Dataset` or a
            `keras.utils.PyDataset` of batches. At most 32 batches are read, of 32 examples where
            arrays are given; labels are not looked at.
        pattern: as in `tfprune.prune`, but not one that decides over several weights of a model at
            once (`"head"`), nor one of whole outputs (`"filter"`, `"column"`).
        allocation: as in `tfprune.prune`; where one threshold over all weights decides, as with
            `"global"`, it is one over the magnitudes.
        damping: how much holds the weights at their old values, as a fraction of the mean square of
            their inputs; above 0. Raise it if the examples are fewer than a layer's inputs.
        max_rows: at most so many rows of a layer's inputs are used, drawn at random; a convolution
            has a row for each output position of each example.
        verbose: whether a progress bar over the layers is shown; by default on a terminal.
        include: as in `tfprune.prune`.
        exclude: as in `tfprune.prune`.

    Returns:
        A new, uncompiled model of plain layers. To train it on without losing the zeros, call
        `tfprune.prune(model, schedule="keep")` on it.

    Raises:
        InvalidArgumentError: for a bad value, selectors that match nothing, or data that are
            missing or not finite.
        InvalidTypeError: for a value of another type.
        UnsupportedModelError: for a tf_keras, unbuilt or subclassed model; for weights whose inputs
            are not known, such as embeddings; for layers that the data do not reach.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
        >>> sparse = sparse_gpt(model, 0.75, data=x)
        >>> int(np.count_nonzero(sparse.layers[0].kernel))
        8
    """
    plan = PruningPlan.create(ConstantSparsity(sparsity), "magnitude", pattern, allocation)
    _check_options(plan, damping, max_rows)
    check_layer(model)
    if not is_rebuildable(model):
        raise subclassed_model_error(model, "tfprune.Pruner(model, schedule=0.5).step()")
    check_built(model)
    chosen = choose_weights(model, plan.pattern, include, exclude)
    batches = [x for x, _, _ in Probe(model, chosen, data).batches()]
    sparsities = _sparsities(chosen, ready_plan(plan, chosen), sparsity)
    alive = [weight.alive() for weight in chosen]

    sparse, copy_of = plain_copy(model)
    found = {id(c.variable): c for c in find_candidates(sparse)}
    copies = [found[id(copy_of[id(weight.variable)])] for weight in chosen]
    weights = [PrunedWeight(c.variable, c.layout, owners=c.owners) for c in copies]
    calls = _count_calls(sparse, weights, batches)
    shown = sys.stdout.isatty() if verbose == "auto" else bool(verbose)
    bar = keras.utils.Progbar(len(calls), verbose=int(shown), unit_name="layer")
    for layer, counts in calls.items():
        indices = [i for i, weight in enumerate(weights) if weight.layer is layer]
        own = [weights[i] for i in indices]
        for i, gram in zip(indices, _grams(sparse, own, batches, counts, max_rows), strict=True):
            kernel = prune_and_reconstruct(
                weights[i].values(),
                gram,
                sparsities[i],
                plan.pattern,
                layout=weights[i].layout,
                alive=alive[i],
                damping=damping,
                path=chosen[i].path,
            )
            weights[i].variable.assign(kernel)
        bar.add(1)
    return sparse


def _check_options(plan: PruningPlan, damping: float, max_rows: int) -> None:
    if plan.pattern.couples:
        raise InvalidArgumentError(
            f"Layers are pruned one after the other here, so {plan.pattern} cannot decide over "
            "several at once: pass a pattern of single weights, such as 'unstructured' or '2:4'."
        )
    if plan.pattern.whole_outputs:
        raise InvalidArgumentError(
            f"{plan.pattern} removes whole outputs, and no weight that is kept can make up for one:"
            " call `tfprune.prune_once`, or pass a pattern such as 'unstructured' or '2:4'."
        )
    if not isinstance(damping, Real):
        raise InvalidTypeError(f"`damping` must be a number, such as 0.01. Received: {damping!r}")
    if not (damping > 0 and math.isfinite(damping)):
        raise InvalidArgumentError(f"`damping` must be above 0, such as 0.01. Received: {damping}")
    if not isinstance(max_rows, int):
        raise InvalidTypeError(f"`max_rows` must be an int. Received: {max_rows!r}")
    if max_rows < 1:
        raise InvalidArgumentError(f"`max_rows` must be at least 1. Received: {max_rows}")


def _sparsities(weights: Sequence[PrunedWeight], plan: PruningPlan, sparsity: float) -> list[float]:
    """Return the sparsity of each weight as a share of what the pattern can prune of it."""
    masks = compute_masks(weights, plan, sparsity)
    return [
        (mask.size - int(np.count_nonzero(mask))) / plan.pattern.prunable_size(weight.layout)
        for weight, mask in zip(weights, masks, strict=True)
    ]


def _count_calls(
    model: keras.Model, weights: Sequence[PrunedWeight], batches: Sequence[Any]
) -> dict[keras.layers.Layer, list[int]]:
    """Return the number of calls in each batch of the layers of some weights, in their order.

    Raises:
        UnsupportedModelError: if a layer is never called, or its inputs are not known.
    """
    unreached, unknown = list(weights), []
    calls: list[Counter[keras.layers.Layer]] = []

    def count(layer: keras.layers.Layer, inputs: Any, outputs: Any) -> None:
        calls[-1][layer] += 1
        for weight in [weight for weight in unreached if weight.layer is layer]:
            unreached.remove(weight)
            try:
                input_matrix(weight, inputs, max_rows=1)
            except UnsupportedModelError:
                unknown.append(weight)

    layers = [weight.layer for weight in weights]
    for x in batches:
        calls.append(Counter())
        run_watched(model, x, layers, count)
    if unknown:
        raise unsupported_inputs(unknown, but=", if the kernel is not grouped or depthwise")
    if unreached:
        raise UnsupportedModelError(
            "The layers of these weights are not called when the model runs on the data, or only "
            f"inside of a graph, where there are no values to see: {[w.path for w in unreached]}. "
            "Leave them out with `exclude=`."
        )
    return {layer: [counter[layer] for counter in calls] for layer in sum(calls, Counter())}


def _grams(
    model: keras.Model,
    weights: Sequence[PrunedWeight],
    batches: Sequence[Any],
    counts: Sequence[int],
    max_rows: int,
) -> list[np.ndarray]:
    """Return X^T X, float32, of the inputs of the weights of one layer.

    Args:
        model: the model.
        weights: weights of one layer.
        batches: the model's inputs.
        counts: how many times each batch calls the layer.
        max_rows: rows of X at most, or one per call.
    """
    random = np.random.default_rng(0)
    rows_per_call = max(max_rows // sum(counts), 1)
    sizes = [math.prod(weight.layout.taps_shape[:2]) for weight in weights]
    grams = [np.zeros((size, size), np.float32) for size in sizes]
    left = 0

    def add(layer: keras.layers.Layer, inputs: Any, outputs: Any) -> None:
        nonlocal left
        for weight, gram in zip(weights, grams, strict=True):
            rows = input_matrix(weight, inputs, rows_per_call, random)
            np.add(gram, rows.T @ rows, out=gram)
        left -= 1
        # TensorFlow complains of a loop over time that is left; at its last step little is saved.
        if not left and not isinstance(layer, RECURRENT_CELLS):
            raise _LastCall

    for x, left in zip(batches, counts, strict=True):
        if left:
            with contextlib.suppress(_LastCall):
                run_watched(model, x, [weights[0].layer], add)
    return grams


class _LastCall(BaseException):
    """The layer has been called for the last time; what follows need not run.

    Not an `Exception`, so that no `except` on the way out takes it for an error.
    """

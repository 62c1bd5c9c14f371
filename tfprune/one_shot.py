"""`prune_once`: a sparse model in one shot, without training."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import keras

from tfprune.cloning import is_rebuildable
from tfprune.errors import InvalidArgumentError
from tfprune.evidence import Probe, check_data
from tfprune.mask_computation import compute_masks, ready_plan
from tfprune.model_checks import check_built, check_layer, subclassed_model_error
from tfprune.plain_copy import plain_copy, zero_pruned
from tfprune.pruning_plan import PruningPlan
from tfprune.schedules import ConstantSparsity, Threshold
from tfprune.selection import Selector, choose_weights


def prune_once(
    model: keras.Model,
    sparsity: float | Threshold,
    criterion: Any = "magnitude",
    pattern: Any = "unstructured",
    allocation: Any = "uniform",
    *,
    data: Any = None,
    loss: Any = None,
    verbose: bool | str = "auto",
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
) -> keras.Model:
    """Return a plain copy of the model with the given sparsity, without training.

    Args:
        model: a built Functional or Sequential model, pruned or not.
        sparsity: fraction of zeros, in [0, 1); or a `tfprune.schedules.Threshold`.
        criterion: as in `prune`, but not one that sums over training steps.
        pattern: as in `prune`.
        allocation: as in `prune`.
        data: as in `prune`; at most 32 batches are read, of 32 examples where arrays are given.
        loss: what `compile` takes as `loss`, for criteria that need one; by default what the model
            is compiled with.
        verbose: whether a progress bar is shown while data are read; by default on a terminal.
        include: as in `prune`.
        exclude: as in `prune`.

    Returns:
        A new, uncompiled model of plain layers. To train it on without losing the zeros, call
        `prune(model, schedule="keep")` on it.

    Raises:
        InvalidArgumentError: for a bad value, or selectors that match nothing.
        UnsupportedModelError: for a tf_keras, unbuilt or subclassed model.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> sparse = prune_once(model, 0.75)
        >>> int(keras.ops.count_nonzero(sparse.layers[0].kernel))
        8
    """
    amount = sparsity if isinstance(sparsity, Threshold) else ConstantSparsity(sparsity)
    plan = PruningPlan.create(amount, criterion, pattern, allocation)
    check_data(plan.criterion.evidence, data)
    if plan.criterion.accumulates:
        raise InvalidArgumentError(
            f"The criterion {plan.criterion.name()!r} sums over training steps, and there are none "
            "here: use it in `tfprune.prune`, or score with 'taylor' and `data=`."
        )
    check_layer(model)
    if not is_rebuildable(model):
        raise subclassed_model_error(model, "tfprune.Pruner(model, schedule=0.5).step()")
    check_built(model)
    # Selected and scored in the given model: its copy is not compiled, and its automatic names,
    # and so its weights' paths, can be others.
    weights = choose_weights(model, plan.pattern, include, exclude)
    plan = ready_plan(plan, weights)
    shown = sys.stdout.isatty() if verbose == "auto" else bool(verbose)
    probe = Probe(model, weights, data, loss=loss, verbose=shown)
    masks = compute_masks(weights, plan, sparsity, probe=probe)
    plain, copy_of = plain_copy(model)
    for weight, mask in zip(weights, masks, strict=True):
        zero_pruned(copy_of[id(weight.variable)], mask)
    return plain

"""`prune` and `strip`: from a plain model to a pruned one, and back.

Both return new, uncompiled models and leave the given one alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.cloning import LayerCopier, is_rebuildable, rebuild
from tfprune.errors import InvalidTypeError, NotPrunedError, UnsupportedModelError
from tfprune.evidence import check_data
from tfprune.mask_computation import ready_plan
from tfprune.model_checks import check_built, check_layer, subclassed_model_error
from tfprune.plain_copy import copy_built, plain_copy
from tfprune.pruner import find_holders
from tfprune.pruning_plan import PruningPlan
from tfprune.schedules import Keep
from tfprune.selection import Selector, choose_weights
from tfprune.wrappers import Pruned


def prune(
    model: keras.layers.Layer | Sequence[keras.layers.Layer],
    schedule: Any,
    criterion: Any = "magnitude",
    pattern: Any = "unstructured",
    allocation: Any = "uniform",
    *,
    data: Any = None,
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
    copy: bool = True,
) -> Any:
    """Return the model with pruning masks in place, ready for `compile` and `fit`.

    Nothing is zero yet: `fit` with `callbacks=[tfprune.callbacks.UpdateMasks()]` raises the
    sparsity as the schedule says. A model that is pruned already gets a new plan, and keeps its
    masks.

    Args:
        model: a built Functional or Sequential model, a layer, or a list of layers.
        schedule: a schedule from `tfprune.schedules`; a sparsity in [0, 1), reached at the first
            step; or `"keep"`, which holds the zeros that the weights have now.
        criterion: which weights matter: a name from `tfprune.criteria`, such as `"magnitude"`,
            `"taylor"`, `"movement"` or `"rigl"`, or a `Criterion`.
        pattern: which weights go together: `"unstructured"`, an N:M pattern such as `"2:4"`,
            `"filter"` and others from `tfprune.patterns`, such as `Block((1, 4))`; `"xnnpack"`
            takes single weights where that makes phones and browsers faster, and nothing else.
        allocation: `"uniform"` gives every weight the same sparsity, `"global"` cuts by one
            threshold over all, `"erk"`, `"lamp"` and others are in `tfprune.allocation`; a dict
            such as `{"conv1": 0.05}` sets some layers apart.
        data: what criteria such as `"taylor"` and `"wanda"` look at when the masks are updated:
            arrays `(x, y)`, a `tf.data.Dataset` or `keras.utils.PyDataset` of batches. It is not
            saved with the model.
        include: prune only these: layer names, weight paths, `re.compile(...)` patterns, layer
            classes or callables on the layer; one or several.
        exclude: do not prune these.
        copy: whether the new model has weights of its own. `False` shares the given layers.

    Returns:
        The pruned model, layer or list of layers.

    Raises:
        InvalidArgumentError: for a bad value, weights that are NaN or infinite, or selectors that
            match nothing.
        InvalidTypeError: for a value of the wrong type.
        UnsupportedModelError: for a tf_keras, unbuilt or subclassed model.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> pruned = prune(model, schedule=0.75)
        >>> [layer.name for layer in pruned.layers] == [layer.name for layer in model.layers]
        True
    """
    plan = PruningPlan.create(schedule, criterion, pattern, allocation)
    check_data(() if isinstance(plan.schedule, Keep) else plan.criterion.evidence, data)
    if isinstance(model, Sequence):
        pruned = _prune_layers(model, plan, include, exclude, copy)
        pruned[0].set_data(data)
        return pruned
    check_layer(model)
    if is_rebuildable(model):
        pruned = _prune_model(model, plan, include, exclude, copy)
    elif isinstance(model, keras.Model):
        raise subclassed_model_error(model, "pruner = tfprune.Pruner(model, schedule=...)")
    else:
        pruned = _prune_layers([model], plan, include, exclude, copy)[0]
    find_holders(pruned)[0].set_data(data)
    return pruned


def strip(model: Any) -> Any:
    """Return the plain model: masks applied for good, wrappers and mask constraints gone.

    Args:
        model: a pruned model, layer or list of layers.

    Returns:
        A new, uncompiled model of plain Keras layers with the users' own constraints.

    Raises:
        NotPrunedError: if there are no masks.
        UnsupportedModelError: if the wrappers sit inside a subclassed model.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> [type(layer).__name__ for layer in strip(prune(model, 0.5)).layers]
        ['Dense']
    """
    if isinstance(model, Sequence):
        return [strip(layer) for layer in model]
    check_layer(model)
    holders = find_holders(model)
    if not holders:
        raise NotPrunedError(
            f"{model.name!r} holds no pruning masks, so there is nothing to strip."
        )
    if not (isinstance(model, Pruned) or is_rebuildable(model)):
        raise subclassed_model_error(model, "pruner.strip()")
    stripped, _ = plain_copy(model)
    if find_holders(stripped):
        names = ", ".join(holder.name for holder in find_holders(stripped))
        raise UnsupportedModelError(
            f"The pruned layers {names} sit inside a layer of a class of yours, which tfprune does "
            "not take apart: strip them where you made them."
        )
    return stripped


def is_pruned(model: keras.layers.Layer) -> bool:
    """Whether the model or layer holds pruning masks."""
    return bool(find_holders(model))


def _prune_model(
    model: keras.Model, plan: PruningPlan, include: Any, exclude: Any, copy: bool
) -> keras.Model:
    check_built(model)
    selected = choose_weights(model, plan.pattern, include, exclude)
    plan = ready_plan(plan, selected)
    chosen = {id(weight.variable) for weight in selected}
    if copy:
        _check_not_tied(model, chosen)
    wrappers: list[tuple[Pruned, dict[int, np.ndarray]]] = []

    def wrap(layer: keras.layers.Layer, copier: LayerCopier) -> keras.layers.Layer:
        bare = layer.layer if isinstance(layer, Pruned) else layer
        indices = [i for i, variable in enumerate(bare.weights) if id(variable) in chosen]
        masks = _release(layer, bare, keep_constraints=copy)
        new = copier.copy(bare)
        if not indices:
            return new
        wrapper = _wrapper(new, indices, plan, lead=not wrappers)
        wrappers.append((wrapper, masks))
        return wrapper

    pruned, _ = rebuild(model, wrap, LayerCopier(copy))
    for wrapper, masks in wrappers:
        _set_first_masks(wrapper, masks, plan)
    return pruned


def _prune_layers(
    layers: Sequence[keras.layers.Layer],
    plan: PruningPlan,
    include: Any,
    exclude: Any,
    copy: bool,
) -> list[Pruned]:
    if plan.pattern.whole_model:
        raise InvalidTypeError(
            f"The pattern {plan.pattern.name()!r} looks at the layers around a layer: prune a "
            "whole keras.Model. Received single layers."
        )
    for layer in layers:
        check_layer(layer)
        if not layer.built and (include is not None or exclude is not None):
            raise UnsupportedModelError(
                f"The layer {layer.name!r} has no weights yet to include or exclude: build it "
                "first, or prune the whole model."
            )
    selected = [
        choose_weights(layer, plan.pattern, include, exclude) if layer.built else []
        for layer in layers
    ]
    if all(layer.built for layer in layers):
        plan = ready_plan(plan, [weight for weights in selected for weight in weights])
    pruned = []
    for layer, weights in zip(layers, selected, strict=True):
        bare = layer.layer if isinstance(layer, Pruned) else layer
        chosen = {id(weight.variable) for weight in weights}
        indices = [i for i, v in enumerate(bare.weights) if id(v) in chosen] or None
        masks = _release(layer, bare, keep_constraints=copy)
        copier = LayerCopier(copy)
        new = copy_built(bare, copier) if bare.built else copier.copy(bare)
        wrapper = _wrapper(new, indices, plan, lead=not pruned)
        if bare.built:
            wrapper.build()
            _set_first_masks(wrapper, masks, plan)
        pruned.append(wrapper)
    return pruned


def _wrapper(
    layer: keras.layers.Layer, indices: list[int] | None, plan: PruningPlan, lead: bool
) -> Pruned:
    return Pruned(
        layer,
        indices,
        plan=plan if lead else None,
        plan_id=plan.id,
        accumulates=plan.criterion.accumulates,
    )


def _release(
    layer: keras.layers.Layer, bare: keras.layers.Layer, keep_constraints: bool
) -> dict[int, np.ndarray]:
    """Return a wrapper's masks by index in its layer's weights, and let go of shared weights."""
    if not isinstance(layer, Pruned):
        return {}
    position = {id(variable): index for index, variable in enumerate(bare.weights)}
    masks = {
        position[id(variable)]: keras.ops.convert_to_numpy(mask)
        for variable, mask in zip(layer.prunable_weights, layer.weight_masks, strict=True)
    }
    if not keep_constraints:
        layer.release_masks()
    return masks


def _set_first_masks(wrapper: Pruned, masks: dict[int, np.ndarray], plan: PruningPlan) -> None:
    """Fill the masks of a new wrapper: from the zeros, or from the wrapper it replaces."""
    position = {id(variable): index for index, variable in enumerate(wrapper.layer.weights)}
    for variable, mask in zip(wrapper.prunable_weights, wrapper.weight_masks, strict=True):
        if isinstance(plan.schedule, Keep):
            mask.assign(keras.ops.not_equal(variable, 0))
        elif position[id(variable)] in masks:
            mask.assign(masks[position[id(variable)]])


def _check_not_tied(model: keras.Model, chosen: set[int]) -> None:
    """Refuse to copy a model in which two layers share a variable: the copies would not."""
    leaves = [layer for layer in _graph_layers(model) if not is_rebuildable(layer)]
    uses = Counter(
        id(variable) for layer in leaves for variable in {id(v): v for v in layer.weights}.values()
    )
    tied = [
        v.path for layer in leaves for v in layer.weights if uses[id(v)] > 1 and id(v) in chosen
    ]
    if tied:
        raise UnsupportedModelError(
            f"These weights are shared between layers: {', '.join(sorted(set(tied)))}. Keras "
            "copies them as separate weights, which would untie them: pass `copy=False` to prune "
            "the given layers themselves."
        )


def _graph_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a model and of the models nested in it, each once."""
    found: dict[int, keras.layers.Layer] = {}
    for layer in model.layers:
        nested = _graph_layers(layer) if is_rebuildable(layer) else []
        found.update((id(part), part) for part in [layer, *nested])
    return list(found.values())

"""`prune`, `strip` and `prune_once`: from a plain model to a pruned one, and back.

All return new, uncompiled models and leave the given one alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.cloning import LayerCopier, is_rebuildable, rebuild
from tfprune.errors import InvalidArgumentError, NotPrunedError, UnsupportedModelError
from tfprune.model_checks import check_built, check_layer
from tfprune.prunable import Candidate
from tfprune.pruner import PrunedWeight, compute_masks, find_holders
from tfprune.pruning_plan import PruningPlan
from tfprune.schedules import ConstantSparsity, Keep
from tfprune.selection import Selector, select_weights
from tfprune.wrappers import MaskHolder, Pruned


def prune(
    model: keras.layers.Layer | Sequence[keras.layers.Layer],
    schedule: Any,
    criterion: Any = "magnitude",
    pattern: Any = "unstructured",
    allocation: Any = "uniform",
    *,
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
        criterion: which weights matter: `"magnitude"`, `"random"` or a `Criterion`.
        pattern: which weights go together: `"unstructured"`, an N:M pattern such as `"2:4"`, or a
            `Pattern` such as `tfprune.patterns.Block((1, 4))`.
        allocation: `"uniform"` gives every weight the same sparsity, `"global"` cuts by one
            threshold over all; or an `Allocation`.
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
    if isinstance(model, Sequence):
        return _prune_layers(model, plan, include, exclude, copy)
    check_layer(model)
    if is_rebuildable(model):
        return _prune_model(model, plan, include, exclude, copy)
    if isinstance(model, keras.Model):
        raise _subclassed_model_error(model, "pruner = tfprune.Pruner(model, schedule=...)")
    return _prune_layers([model], plan, include, exclude, copy)[0]


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
    copier = LayerCopier()
    if isinstance(model, Pruned):
        stripped = _copy_built(model.layer, copier)
        copies = {id(model): stripped}
    elif is_rebuildable(model):
        stripped, copies = rebuild(model, _copy_unwrapped, copier)
    else:
        raise _subclassed_model_error(model, "pruner.strip()")
    _zero_pruned_weights(holders, _copied_variables(model, copies))
    if find_holders(stripped):
        names = ", ".join(holder.name for holder in find_holders(stripped))
        raise UnsupportedModelError(
            f"The pruned layers {names} sit inside a layer of a class of yours, which tfprune does "
            "not take apart: strip them where you made them."
        )
    return stripped


def prune_once(
    model: keras.Model,
    sparsity: float,
    criterion: Any = "magnitude",
    pattern: Any = "unstructured",
    allocation: Any = "uniform",
    *,
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
) -> keras.Model:
    """Return a plain copy of the model with the given sparsity, without training.

    Args:
        model: a built Functional or Sequential model, pruned or not.
        sparsity: fraction of zeros, in [0, 1).
        criterion: as in `prune`.
        pattern: as in `prune`.
        allocation: as in `prune`.
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
        >>> int(np.count_nonzero(sparse.layers[0].kernel))
        8
    """
    plan = PruningPlan.create(ConstantSparsity(sparsity), criterion, pattern, allocation)
    check_layer(model)
    if not is_rebuildable(model):
        raise _subclassed_model_error(model, "tfprune.Pruner(model, schedule=0.5).step()")
    check_built(model)
    # Selected in the given model: a copy's automatic names, and so its paths, can be others.
    selected = _selected_weights(model, plan, include, exclude)
    plain, copies = rebuild(model, _copy_unwrapped, LayerCopier())
    copy_of = _copied_variables(model, copies)
    _zero_pruned_weights(find_holders(model), copy_of)
    weights = [PrunedWeight(copy_of[id(w.variable)], w.layout) for w in selected]
    for weight, mask in zip(weights, compute_masks(weights, plan, sparsity), strict=True):
        _zero(weight.variable, mask)
    return plain


def is_pruned(model: keras.layers.Layer) -> bool:
    """Whether the model or layer holds pruning masks."""
    return bool(find_holders(model))


def _prune_model(
    model: keras.Model, plan: PruningPlan, include: Any, exclude: Any, copy: bool
) -> keras.Model:
    check_built(model)
    selected = _selected_weights(model, plan, include, exclude)
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
        wrapper = Pruned(new, indices, plan=None if wrappers else plan, plan_id=plan.id)
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
    for layer in layers:
        check_layer(layer)
        if not layer.built and (include is not None or exclude is not None):
            raise UnsupportedModelError(
                f"The layer {layer.name!r} has no weights yet to include or exclude: build it "
                "first, or prune the whole model."
            )
    selected = [
        _selected_weights(layer, plan, include, exclude) if layer.built else [] for layer in layers
    ]
    pruned = []
    for layer, weights in zip(layers, selected, strict=True):
        bare = layer.layer if isinstance(layer, Pruned) else layer
        chosen = {id(weight.variable) for weight in weights}
        indices = [i for i, v in enumerate(bare.weights) if id(v) in chosen] or None
        masks = _release(layer, bare, keep_constraints=copy)
        copier = LayerCopier(copy)
        new = _copy_built(bare, copier) if bare.built else copier.copy(bare)
        wrapper = Pruned(new, indices, plan=None if pruned else plan, plan_id=plan.id)
        if bare.built:
            wrapper.build()
            _set_first_masks(wrapper, masks, plan)
        pruned.append(wrapper)
    return pruned


def _selected_weights(
    layer: keras.layers.Layer, plan: PruningPlan, include: Any, exclude: Any
) -> list[PrunedWeight]:
    """Return the weights to prune, after checking that their values are finite."""
    decided: list[Candidate] = select_weights(layer, include, exclude, plan.pattern)
    weights = [PrunedWeight(c.variable, c.layout) for c in decided if c.reason is None]
    diverged = [w.path for w in weights if not np.isfinite(_extremes(w.values())).all()]
    if diverged:
        raise InvalidArgumentError(
            f"These weights hold NaN or infinite values: {', '.join(diverged)}. "
            "Restore a checkpoint from before the training diverged."
        )
    return weights


def _extremes(values: np.ndarray) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


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


def _copy_unwrapped(layer: keras.layers.Layer, copier: LayerCopier) -> keras.layers.Layer:
    return copier.copy(layer.layer if isinstance(layer, Pruned) else layer)


def _copy_built(layer: keras.layers.Layer, copier: LayerCopier) -> keras.layers.Layer:
    new = copier.copy(layer)
    if not new.built:
        new.build_from_config(layer.get_build_config())
    copier.transfer_state()
    return new


def _copied_variables(
    model: keras.layers.Layer, copies: dict[int, keras.layers.Layer]
) -> dict[int, keras.Variable]:
    """Return the copy of each weight of a model by the `id` of the original."""
    copy_of: dict[int, keras.Variable] = {}
    for layer in model._flatten_layers():
        if id(layer) in copies and not is_rebuildable(layer):
            bare = layer.layer if isinstance(layer, Pruned) else layer
            pairs = zip(bare.weights, copies[id(layer)].weights, strict=True)
            copy_of.update((id(old), new) for old, new in pairs)
    return copy_of


def _zero_pruned_weights(holders: Sequence[MaskHolder], copy_of: dict[int, keras.Variable]) -> None:
    """Apply each holder's masks to the copies of its weights."""
    for holder in holders:
        for variable, mask in zip(holder.prunable_weights, holder.weight_masks, strict=True):
            if id(variable) in copy_of:
                _zero(copy_of[id(variable)], mask)


def _zero(variable: keras.Variable, mask: Any) -> None:
    variable.assign(keras.ops.where(mask, variable, keras.ops.zeros((), variable.dtype)))


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


def _subclassed_model_error(model: keras.layers.Layer, remedy: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{model.name!r} is a {type(model).__name__}: a class of its own, which cannot be taken "
        f"apart and rebuilt. Work on it in place: `{remedy}`, with "
        "`tfprune.callbacks.UpdateMasks(pruner)` in `fit`."
    )

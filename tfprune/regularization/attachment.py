"""`regularize` and `constrain`: put a Keras regularizer or constraint on the kernels of a model.

Keras reads both from the variable, and saves them with the layer that made it, as the argument of
the layer (`kernel_regularizer`, `depthwise_constraint`, ...). Both places are filled in here, so
what is attached is saved with the model, and copied by `tfprune.prune` and `tfprune.strip`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import keras

from tfprune.cloning import LayerCopier, is_rebuildable, rebuild
from tfprune.errors import InvalidArgumentError, UnsupportedModelError
from tfprune.model_checks import check_built, check_layer
from tfprune.prunable import Candidate, find_candidates
from tfprune.pruner import find_holders
from tfprune.regularization.combinations import ConstraintChain, RegularizerSum
from tfprune.regularization.group_lasso import GroupLasso
from tfprune.selection import Selector, select_weights
from tfprune.wrappers import MaskConstraint

# These make their kernels from an argument of their own, one for all.
_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def regularize(
    model: keras.Model,
    regularizer: Any,
    *,
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
    copy: bool = True,
) -> keras.Model:
    """Return the model with a penalty on its kernels; penalties that it has already count on.

    The penalty is part of the model's loss in `fit` and `evaluate`, and is saved with the model. It
    does not matter whether the model is pruned before or after.

    Args:
        model: a built model of any kind, pruned or not.
        regularizer: a `keras.regularizers.Regularizer` such as `keras.regularizers.L1(1e-4)` or
            `GroupLasso(1e-3)`, its Keras name, or a function of the weight.
        include: regularize only these, as in `tfprune.prune`; by default all prunable weights. A
            path reaches the others too: `include=re.compile("gamma$")` with L1 is the penalty of
            network slimming on batch normalization (Liu et al., 2017).
        exclude: do not regularize these.
        copy: whether to return a new, uncompiled model. `False` works on the given model and
            returns it; that is the way for subclassed models, whose files do not hold what is
            attached: call `regularize` again after loading.

    Raises:
        InvalidArgumentError: for a bad regularizer, or selectors that match nothing.
        InvalidTypeError: if `model` is not a Keras model.
        UnsupportedModelError: for an unbuilt model, or a subclassed one with `copy=True`.

    Example:
        >>> L1, L2 = keras.regularizers.L1, keras.regularizers.L2
        >>> own = keras.layers.Dense(2, kernel_initializer="ones", kernel_regularizer=L2(0.25))
        >>> model = keras.Sequential([keras.Input((3,)), own])
        >>> float(model.losses[0])  # 0.25 * 6
        1.5
        >>> float(regularize(model, L1(0.5)).losses[0])  # and 0.5 * 6
        4.5
    """
    regularizer = _interpreted(keras.regularizers.get, "regularizer", regularizer)

    def attached(candidate: Candidate) -> Any:
        new = regularizer
        if isinstance(new, GroupLasso):
            new = new.for_layout(candidate.layout)
        own = candidate.variable.regularizer
        return new if own is None else RegularizerSum([own, new])

    return _attach(model, "regularizer", attached, include=include, exclude=exclude, copy=copy)


def constrain(
    model: keras.Model,
    constraint: Any,
    *,
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
    copy: bool = True,
) -> keras.Model:
    """Return the model with a constraint on its kernels, applied after those that they have.

    It holds after every training step, together with pruning masks; it does not matter whether the
    model is pruned before or after. The weights are left as they are until then.

    Args:
        model: a built model of any kind, pruned or not.
        constraint: a `keras.constraints.Constraint`, its Keras name, or a function of the weight:
            `ClipRange(-1, 1)`; `keras.constraints.MaxNorm(2.0, axis=None)` for a norm ball around
            each whole weight, with the weight's input axes as `axis` for one around each unit.
        include: constrain only these, as in `tfprune.prune`; by default all prunable weights.
        exclude: do not constrain these.
        copy: as in `regularize`.

    Raises:
        InvalidArgumentError: for a bad constraint, or selectors that match nothing.
        InvalidTypeError: if `model` is not a Keras model.
        UnsupportedModelError: for an unbuilt model, or a subclassed one with `copy=True`.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> model = constrain(model, keras.constraints.NonNeg())
        >>> type(model.layers[0].kernel.constraint).__name__
        'NonNeg'
    """
    constraint = _interpreted(keras.constraints.get, "constraint", constraint)

    def attached(candidate: Candidate) -> Any:
        own = own_constraint(candidate.variable)
        return constraint if own is None else ConstraintChain([own, constraint])

    return _attach(model, "constraint", attached, include=include, exclude=exclude, copy=copy)


def own_constraint(variable: keras.Variable) -> Any:
    """Return a weight's constraint, inside of the pruning mask if it has one."""
    outer = variable.constraint
    return outer.user_constraint if isinstance(outer, MaskConstraint) else outer


def set_own_constraint(variable: keras.Variable, constraint: Any) -> None:
    """Set a weight's constraint, inside of the pruning mask if it has one."""
    if isinstance(variable.constraint, MaskConstraint):
        variable.constraint.user_constraint = constraint
    else:
        variable.constraint = constraint


def _interpreted(get: Any, name: str, value: Any) -> Any:
    try:
        found = get(value)
    except ValueError:
        found = None
    if found is None:
        raise InvalidArgumentError(
            f"`{name}` must be a Keras {name}, its name, or a function of the weight. "
            f"Received: {value!r}"
        )
    return found


def _attach(
    model: keras.Model, kind: str, attached: Any, *, include: Any, exclude: Any, copy: bool
) -> keras.Model:
    check_layer(model)
    if copy and not is_rebuildable(model):
        raise UnsupportedModelError(
            f"{model.name!r} is a {type(model).__name__}: a class of its own, which cannot be "
            "taken apart and rebuilt. Pass `copy=False` to work on it in place."
        )
    check_built(model)
    decided = select_weights(model, include, exclude)
    values = [attached(candidate) for candidate in decided if candidate.reason is None]
    if copy:
        model = _copied(model)
    own = find_candidates(model)
    if len(own) != len(decided):
        raise UnsupportedModelError(
            "This model has weights that are shared between layers. Keras copies them as separate "
            "weights, which would untie them: pass `copy=False` to work on the given model."
        )
    chosen = [new for old, new in zip(decided, own, strict=True) if old.reason is None]
    for candidate, value in zip(chosen, values, strict=True):
        _set(candidate, kind, value)
    unsaved = [candidate.path for candidate in chosen if not _is_saved(candidate, kind)]
    if unsaved and is_rebuildable(model):
        warnings.warn(
            f"The {kind} works on {', '.join(unsaved)}, but no layer's config has a place for it: "
            "it is lost when the model is saved, loaded or copied. Attach it again then, or make "
            f"it an argument of your own layer.",
            stacklevel=3,
        )
    # A training step that is traced already misses what is new.
    model.train_function = model.test_function = None
    return model


def _copied(model: keras.Model) -> keras.Model:
    new, _ = rebuild(model, lambda layer, copier: copier.copy(layer), LayerCopier())
    for old_holder, new_holder in zip(find_holders(model), find_holders(new), strict=True):
        new_holder.set_data(old_holder.data)
    return new


def _set(candidate: Candidate, kind: str, value: Any) -> None:
    """Attach to one weight, and to the layer that saves it."""
    if kind == "regularizer":
        candidate.variable.regularizer = value
    else:
        set_own_constraint(candidate.variable, value)
    argument = _argument(candidate, kind)
    if argument is not None:
        setattr(candidate.layer, argument, value)
    attention = _attention(candidate)
    if attention is not None and argument == f"kernel_{kind}":
        kernels = [c for c in find_candidates(attention) if _argument(c, kind) == argument]
        # One argument for all: it can be told only when all of them agree.
        if all(getattr(kernel.layer, argument) == value for kernel in kernels):
            setattr(attention, _attention_argument(attention, kind), value)


def _is_saved(candidate: Candidate, kind: str) -> bool:
    """Whether the model's config holds what is attached to a weight."""
    argument, attention = _argument(candidate, kind), _attention(candidate)
    if argument is None:
        return False
    if attention is not None:
        held = getattr(attention, _attention_argument(attention, kind))
        if held != getattr(candidate.layer, argument):
            return False
    # A class of the user's own does not put the configs of its sublayers into its own.
    return all(
        type(owner).__module__.startswith(("keras.", "tfprune.")) for owner in candidate.owners[:-1]
    )


def _argument(candidate: Candidate, kind: str) -> str | None:
    """Return the name of the layer's argument for a weight's regularizer or constraint."""
    layer = candidate.layer
    names = [n.lstrip("_") for n, value in vars(layer).items() if value is candidate.variable]
    stems = [stem for name in names for stem in (name, name.removesuffix("_kernel"))]
    if "kernel" in names:
        stems.append("depthwise")
    return next((f"{stem}_{kind}" for stem in stems if hasattr(layer, f"{stem}_{kind}")), None)


def _attention(candidate: Candidate) -> keras.layers.Layer | None:
    return next((owner for owner in candidate.owners if isinstance(owner, _ATTENTION)), None)


def _attention_argument(attention: keras.layers.Layer, kind: str) -> str:
    private = f"_kernel_{kind}"
    return private if hasattr(attention, private) else f"kernel_{kind}"

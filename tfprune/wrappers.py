"""`Pruned`, the layer wrapper that holds the masks, and the constraint that enforces them.

Each prunable weight gets one boolean mask variable and a constraint that Keras applies inside the
compiled training step, right after the optimizer: pruned weights are exact zeros after every step,
and nothing is added to the forward pass. Otherwise the wrapper is invisible: it calls the layer it
holds with whatever it is called with, and has its name, shapes, masks, dtypes and attributes.

    constraint(w) = where(mask, user(where(mask, w, 0)), 0)

`where` and not a product, which would leave -0.0 and NaN behind; the mask around the user's own
constraint, so that both hold.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras.src.utils import tracking

from tfprune.prunable import find_candidates
from tfprune.pruning_plan import PruningPlan
from tfprune.step_counter import StepCounter


class MaskConstraint(keras.constraints.Constraint):
    """Keep pruned weights at zero, and apply the user's own constraint to the others.

    Args:
        mask: boolean variable of the weight's shape, false where the weight is pruned.
        user_constraint: the constraint that the weight had before, or `None`.
        holder: the layer that holds the mask.
        accumulator: float variable of the weight's shape, what the criterion sums in training.
    """

    def __init__(
        self,
        mask: keras.Variable,
        user_constraint: Any,
        holder: MaskHolder | None = None,
        accumulator: keras.Variable | None = None,
    ) -> None:
        self.mask = mask
        self.accumulator = accumulator
        self.user_constraint = user_constraint
        self._holder = holder

    def __call__(self, w: Any) -> Any:
        """Return the constrained weight."""
        if self._holder is not None:
            # Runs when a training step is traced: the first moment that tells training from use.
            self._holder.warn_if_undriven()
        zero = keras.ops.zeros((), w.dtype)
        masked = keras.ops.where(self.mask, w, zero)
        if self.user_constraint is None:
            return masked
        return keras.ops.where(self.mask, self.user_constraint(masked), zero)


class MaskHolder(keras.layers.Layer):
    """Base of the layers that hold masks: a mask and a constraint per weight.

    Each mask is an attribute of its own (`tf.train.Checkpoint` restores nothing for variables that
    live in a list alone). One holder of every plan, its lead, also holds the plan and two counters
    that belong to it, so that they are saved with the model.
    """

    plan: PruningPlan | None = None
    plan_id: str | None = None
    accumulates = False
    driven = False
    data: Any = None
    _masked_variables: Sequence[keras.Variable] = ()

    @property
    def prunable_weights(self) -> list[keras.Variable]:
        """The weights that have masks."""
        return list(self._masked_variables)

    @property
    def weight_masks(self) -> list[keras.Variable]:
        """The boolean masks, aligned with `prunable_weights`; false where a weight is pruned."""
        return [variable.constraint.mask for variable in self._masked_variables]

    def hold_masks(self, variables: Sequence[keras.Variable]) -> None:
        """Make a mask for each variable, unless it has one (tied weights), and enforce it."""
        # Untracked: the variables belong to the layers that made them.
        with tracking.DotNotTrackScope():
            self._masked_variables = list(variables)
        for index, variable in enumerate(variables):
            if isinstance(variable.constraint, MaskConstraint):
                continue
            name = variable.path.removeprefix(f"{self.path}/").replace("/", "_")
            mask = _state_variable(variable.shape, "bool", "ones", f"{name}_mask")
            setattr(self, f"weight_mask_{index}", mask)
            accumulator = None
            if self.accumulates:
                accumulator = _accumulator(variable.shape, f"{name}_sum")
                setattr(self, f"weight_sum_{index}", accumulator)
            variable.constraint = MaskConstraint(mask, variable.constraint, self, accumulator)
        if self.plan is not None:
            self.pruning_step = StepCounter("pruning_step")
            self.pruning_held = _state_variable((), "bool", "zeros", "pruning_held")

    def set_data(self, data: Any) -> None:
        """Keep what the criterion looks at; it is not saved with the model."""
        # Past Keras's attribute tracking, which would wrap lists and datasets.
        self.__dict__["data"] = data

    def release_masks(self) -> None:
        """Give the weights their own constraints back."""
        for variable in self._masked_variables:
            if isinstance(variable.constraint, MaskConstraint):
                variable.constraint = variable.constraint.user_constraint

    def warn_if_undriven(self) -> None:
        """Warn when a model with a schedule trains and nothing drives the schedule."""
        if self.plan is None or self.driven or self.plan.schedule.name() == "keep":
            return
        self.driven = True  # Said once.
        warnings.warn(
            "This model has a pruning schedule, but nothing drives it, so its sparsity will not "
            "change: pass `callbacks=[tfprune.callbacks.UpdateMasks()]` to `fit`, or call "
            "`tfprune.Pruner(model).step()` before each step of your own loop.",
            stacklevel=2,
        )


def _state_variable(shape: Any, dtype: str, initializer: str, name: str) -> keras.Variable:
    return keras.Variable(
        shape=shape,
        dtype=dtype,
        initializer=initializer,
        trainable=False,
        # State changes outside of the replicas, so there is nothing to average.
        aggregation="only_first_replica",
        name=name,
    )


def _accumulator(shape: Any, name: str) -> keras.Variable:
    # A sum over the whole batch, as the optimizer's own all-reduce makes it.
    return keras.Variable(
        shape=shape,
        dtype="float32",
        initializer="zeros",
        trainable=False,
        aggregation="sum",
        name=name,
    )


@keras.saving.register_keras_serializable(package="tfprune")
class MaskStore(MaskHolder):
    """The masks of a model that is not rebuilt around wrappers; `Pruner` attaches it.

    Args:
        plan: what the pruning run does.
    """

    def __init__(self, plan: PruningPlan, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.plan = plan
        self.plan_id = plan.id
        self.accumulates = plan.criterion.accumulates
        self.built = True


@keras.saving.register_keras_serializable(package="tfprune")
class Pruned(MaskHolder, keras.layers.Wrapper):
    """A layer with pruning masks. `tfprune.prune` makes these; `tfprune.strip` removes them.

    Args:
        layer: the layer, built or not; inputs, outputs, shapes and dtypes are the layer's own.
        weight_indices: which of `layer.weights` are pruned; by default those that
            `tfprune.prunable` takes.
        plan: what the pruning run does, in one wrapper of each run.
        plan_id: identity of that run, in all its wrappers.
        accumulates: whether the run's criterion sums something over the training steps.

    Example:
        >>> layer = Pruned(keras.layers.Dense(2, name="head"))
        >>> output = layer(keras.ops.ones((1, 3)))
        >>> [mask.path for mask in layer.weight_masks]
        ['head/kernel_mask']
        >>> layer.kernel is layer.layer.kernel
        True
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        weight_indices: Sequence[int] | None = None,
        plan: PruningPlan | None = None,
        plan_id: str | None = None,
        accumulates: bool = False,
        **kwargs: Any,
    ) -> None:
        # Before super().__init__(), which reads the signature of `call`.
        self.layer = layer
        kwargs = {"name": layer.name, "dtype": layer.dtype_policy, **kwargs}
        kwargs.setdefault("trainable", layer.trainable)
        super().__init__(layer, **kwargs)
        self.plan = plan
        self.plan_id = plan.id if plan else plan_id
        self.accumulates = accumulates
        self._weight_indices = None if weight_indices is None else tuple(weight_indices)
        self.autocast = layer.autocast
        self.supports_masking = layer.supports_masking
        self.supports_jit = layer.supports_jit
        self._convert_input_args = layer._convert_input_args
        self._allow_non_tensor_positional_args = layer._allow_non_tensor_positional_args
        self._register_call_context_args(*layer._call_context_args)

    def build(self, input_shape: Any = None) -> None:
        """Build the layer if needed, and make the masks."""
        super().build(input_shape)
        weights = self.layer.weights
        if self._weight_indices is None:
            chosen = {id(c.variable) for c in find_candidates(self.layer) if c.reason is None}
            self._weight_indices = tuple(i for i, w in enumerate(weights) if id(w) in chosen)
        self.hold_masks([weights[index] for index in self._weight_indices])

    def _maybe_build(self, call_spec: Any) -> None:
        if not self.built:
            # The layer sees the very call that it would see without the wrapper.
            self.layer._maybe_build(call_spec)
            self.build()

    def _open_name_scope(self) -> Any:
        # The layer's own scope, so that its weights keep the paths that they have without it.
        return self.layer._open_name_scope()

    def get_build_config(self) -> dict[str, Any] | None:
        """Return the layer's build config."""
        return self.layer.get_build_config()

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Build the layer from its build config, then the masks."""
        if not self.layer.built:
            self.layer.build_from_config(config)
        if self.layer.built and not self.built:
            self.build()

    @property
    def call(self) -> Any:
        """The layer's call, with the layer's own signature."""

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.layer(*args, **kwargs)

        call.__signature__ = inspect.signature(self.layer.call)
        return call

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return the layer's output spec."""
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """Return the layer's output shape."""
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        """Return the layer's output mask (timesteps, not weights)."""
        return self.layer.compute_mask(*args, **kwargs)

    @property
    def input_spec(self) -> Any:
        """The layer's input spec."""
        return self.layer.input_spec

    @input_spec.setter
    def input_spec(self, value: Any) -> None:
        self.layer.input_spec = value

    def __getattr__(self, name: str) -> Any:
        layer = self.__dict__.get("layer")
        if layer is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(layer, name)

    def get_config(self) -> dict[str, Any]:
        """Return the wrapper's config; the plan is in one wrapper of each run."""
        return {
            **super().get_config(),
            "weight_indices": list(self._weight_indices)
            if self._weight_indices is not None
            else None,
            "plan": self.plan.get_config() if self.plan else None,
            "plan_id": self.plan_id,
            "accumulates": self.accumulates,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Pruned:
        """Rebuild the wrapper and its layer."""
        config = dict(config)
        if config.get("plan"):
            config["plan"] = PruningPlan.from_config(config["plan"])
        return super().from_config(config, custom_objects)

"""The engine: `Pruner` updates the masks of a model when its schedule says so.

`fit` drives it through `tfprune.callbacks.UpdateMasks`, a loop of your own calls `step()` before
each training step. All state - masks, step counter, hold flag - lives in the model's variables and
is read from there at each step, so it does not matter in which order anything restores it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidArgumentError, NotPrunedError
from tfprune.evidence import check_data
from tfprune.gradient_sums import sum_in_training
from tfprune.mask_computation import ready_plan
from tfprune.model_checks import check_built, check_layer
from tfprune.optimizer_state import keeps_averages, mask_average
from tfprune.prunable import find_candidates
from tfprune.pruned_weight import PrunedWeight
from tfprune.pruning_plan import PruningPlan
from tfprune.pruning_run import PruningRun
from tfprune.schedules import Keep
from tfprune.selection import Selector, select_weights
from tfprune.wrappers import MaskHolder, MaskStore


def find_holders(layer: keras.layers.Layer) -> list[MaskHolder]:
    """Return the mask holders in a model, in model order."""
    holders = [part for part in layer._flatten_layers() if isinstance(part, MaskHolder)]
    return list(dict.fromkeys(holders))


class Pruner:
    """Drives the pruning of a model through a training loop.

    Give it a model from `tfprune.prune`, or any built model together with a schedule: then the
    masks are attached to the model's own weights, in place. That is the way for subclassed models.

    Args:
        model: a pruned model, or a built model of any kind.
        schedule: as in `tfprune.prune`; only for a model that is not pruned yet.
        criterion: as in `tfprune.prune`.
        pattern: as in `tfprune.prune`.
        allocation: as in `tfprune.prune`.
        include: as in `tfprune.prune`.
        exclude: as in `tfprune.prune`.
        data: as in `tfprune.prune`; also for a loaded model, whose file holds no data.
        optimizer: the optimizer of a custom loop; the compiled one by default.

    Raises:
        NotPrunedError: if the model is not pruned and no schedule is given.
        InvalidArgumentError: if it is pruned already and a schedule is given.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> pruner = Pruner(model, schedule=0.5)
        >>> pruner.step()  # before each training step
        >>> pruner.sparsity
        0.5
        >>> model = pruner.strip()
    """

    def __init__(
        self,
        model: keras.Model,
        schedule: Any = None,
        criterion: Any = "magnitude",
        pattern: Any = "unstructured",
        allocation: Any = "uniform",
        *,
        include: Selector | Sequence[Selector] | None = None,
        exclude: Selector | Sequence[Selector] | None = None,
        data: Any = None,
        optimizer: Any = None,
    ) -> None:
        check_layer(model)
        self.model = model
        self._optimizer = optimizer
        holders = find_holders(model)
        if schedule is not None:
            if holders:
                raise InvalidArgumentError(
                    f"{model.name!r} is pruned already. To change its plan, call "
                    "`tfprune.prune(model, schedule=...)`, or `pruner.strip()` first if a Pruner "
                    "attached the masks; to drive it, leave `schedule` out."
                )
            plan = PruningPlan.create(schedule, criterion, pattern, allocation)
            check_data(plan.criterion.evidence, data)
            holders = [_attach(model, plan, include, exclude)]
        if not holders:
            raise NotPrunedError(
                f"{model.name!r} holds no pruning masks. Call `tfprune.prune(model, schedule=...)`,"
                " or pass a schedule here to attach masks to the model itself."
            )
        self.runs = _group_runs(model, holders)
        for run in self.runs:
            run.data = data if data is not None else run.data
        self._first = 0

    @property
    def optimizer(self) -> Any:
        """The optimizer whose state is kept clean."""
        return self._optimizer or getattr(self.model, "optimizer", None)

    @property
    def weights(self) -> list[PrunedWeight]:
        """All weights that have masks."""
        return [weight for run in self.runs for weight in run.weights]

    @property
    def sparsity(self) -> float:
        """The fraction of pruned weights among all that have masks."""
        sizes = [weight.size for weight in self.weights]
        pruned = [size * s for size, s in zip(sizes, self.sparsities().values(), strict=True)]
        return sum(pruned) / sum(sizes)

    def sparsities(self) -> dict[str, float]:
        """Return the fraction of pruned weights by weight path."""
        return {w.path: 1 - int(np.count_nonzero(w.alive())) / w.size for w in self.weights}

    @property
    def held(self) -> bool:
        """Whether the masks are frozen; set it to stop raising the sparsity, or to go on."""
        return all(run.held for run in self.runs)

    @held.setter
    def held(self, value: bool) -> None:
        for run in self.runs:
            run.held = value

    @property
    def at_target(self) -> bool:
        """Whether all schedules have served their last update (or the masks are frozen)."""
        return all(
            run.held or run.schedule.end_step is None or run.step >= run.schedule.end_step
            for run in self.runs
        )

    @property
    def keeps_averages(self) -> bool:
        """Whether the optimizer keeps moving averages of the weights (`use_ema=True`)."""
        return keeps_averages(self.optimizer)

    def check_data(self) -> None:
        """Refuse to run a criterion that looks at data without any.

        Raises:
            InvalidArgumentError: if data is missing.
        """
        for run in self.runs:
            if run.data is None and not isinstance(run.schedule, Keep):
                check_data(run.plan.criterion.evidence, None)

    def watch_gradients(self) -> bool:
        """Let criteria that sum something over the training steps see the gradients.

        Returns:
            Whether a training step that is traced already has to be traced again.
        """
        return any(
            [
                sum_in_training(self.optimizer, run.weights, run.plan.criterion.increment)
                for run in self.runs
                if run.plan.criterion.accumulates
            ]
        )

    def resolve(self, steps_per_epoch: int | None, epochs: int | None) -> None:
        """Turn `Epochs` and `Fraction` in the schedules into steps.

        Raises:
            InvalidArgumentError: if the length of the run is unknown and a schedule needs it.
        """
        for run in self.runs:
            if run.schedule.is_resolved:
                continue
            if not steps_per_epoch or not epochs:
                raise InvalidArgumentError(
                    f"{run.schedule} needs the number of steps in an epoch, which this data set "
                    "does not tell: pass `steps_per_epoch` to `fit` (or `resolve`), or give the "
                    "schedule plain steps."
                )
            run.schedule = run.plan.schedule.resolve(steps_per_epoch, steps_per_epoch * epochs)

    def step(self, count: int = 1) -> None:
        """Serve the update that is due; call it before each training step.

        Args:
            count: how many batches the coming execution takes (`steps_per_execution`). Updates
                that fall inside of it are served by `catch_up`.
        """
        self.watch_gradients()
        for run in self.runs:
            begun = run.step
            self._first = begun + 1
            self._serve(run, after=begun, until=begun + 1)
            run.step = begun + count

    def catch_up(self, executed: int) -> None:
        """Serve what fell due inside an execution of several batches; call it afterwards.

        Args:
            executed: how many batches it took.
        """
        for run in self.runs:
            run.step = self._first - 1 + executed
            self._serve(run, after=self._first, until=run.step)

    def _serve(self, run: PruningRun, after: int, until: int) -> None:
        due = run.due(after, until)
        if due is not None:
            run.update(due, self.model, self.optimizer)

    def apply_masks(self) -> None:
        """Zero the pruned weights, and their moving averages if the optimizer keeps some."""
        for weight in self.weights:
            weight.apply_mask()
            mask_average(self.optimizer, weight.variable, weight.mask)

    def finish(self) -> None:
        """End the run: masks in force, and a warning if the schedule is not at its end."""
        self.apply_masks()
        for run in self.runs:
            end = run.schedule.end_step
            if isinstance(end, int) and run.step < end and not run.held:
                warnings.warn(
                    f"Training ended at step {run.step}, before the pruning schedule's end at "
                    f"step {end}: the sparsity is {self.sparsity:.1%}, not {run.schedule.goal}. "
                    "Train longer, or end the schedule earlier.",
                    stacklevel=2,
                )

    def strip(self) -> keras.Model:
        """Detach the masks that this class attached, with the zeros in place.

        Returns:
            The model itself; for a model from `tfprune.prune`, use `tfprune.strip`.

        Raises:
            InvalidArgumentError: if the model is built of wrappers.
        """
        stores = find_holders(self.model)
        if not all(isinstance(store, MaskStore) for store in stores):
            raise InvalidArgumentError(
                "This model is built of pruning wrappers: `tfprune.strip(model)` returns it plain."
            )
        self.apply_masks()
        for store in stores:
            store.release_masks()
            self.model._layers.remove(store)
            del self.model.tfprune_masks
        return self.model


def _attach(model: keras.Model, plan: PruningPlan, include: Any, exclude: Any) -> MaskStore:
    """Attach masks to the weights of a built model, in place."""
    check_built(model)
    chosen = [c for c in select_weights(model, include, exclude, plan.pattern) if c.reason is None]
    weights = [PrunedWeight(c.variable, c.layout, owners=c.owners, part=c.part) for c in chosen]
    plan = ready_plan(plan, weights)
    store = MaskStore(plan, name=f"{model.name}_masks")
    store.hold_masks([candidate.variable for candidate in chosen])
    if isinstance(plan.schedule, Keep):
        for variable, mask in zip(store.prunable_weights, store.weight_masks, strict=True):
            mask.assign(keras.ops.not_equal(variable, 0))
    # A built model takes no new parts; Keras itself unlocks it for LoRA and quantization.
    locked = model._tracker.locked
    model._tracker.unlock()
    model.tfprune_masks = store
    if locked:
        model._lock_state()
    return store


def _group_runs(model: keras.Model, holders: Sequence[MaskHolder]) -> list[PruningRun]:
    candidates = find_candidates(model)
    runs = []
    for plan_id in dict.fromkeys(holder.plan_id for holder in holders):
        members = [holder for holder in holders if holder.plan_id == plan_id]
        lead = next((holder for holder in members if holder.plan is not None), None)
        if lead is None:
            names = ", ".join(holder.name for holder in members[:5])
            raise NotPrunedError(
                f"The layers {names} are pruned, but the layer that holds their schedule is not in "
                "this model. Give the model a plan of its own: `tfprune.prune(model, ...)`."
            )
        # By variable: one that is tied between two layers has one mask, and counts once.
        held = {id(variable) for holder in members for variable in holder.prunable_weights}
        weights = [
            PrunedWeight(
                c.variable,
                c.layout,
                c.variable.constraint.mask,
                c.owners,
                c.variable.constraint.accumulator,
            )
            for c in candidates
            if id(c.variable) in held
        ]
        runs.append(PruningRun(lead, weights))
    return runs

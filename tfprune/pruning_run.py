"""`PruningRun`: one plan at work on the weights that it rules."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.evidence import Probe
from tfprune.mask_computation import compute_masks
from tfprune.optimizer_state import mask_average, reset_pruned_slots
from tfprune.pruned_weight import PrunedWeight
from tfprune.schedules import Schedule
from tfprune.wrappers import MaskHolder


class PruningRun:
    """One plan at work: its counters, and the weights it rules.

    Args:
        lead: the holder that has the plan.
        weights: the weights of all holders of the plan.
    """

    def __init__(self, lead: MaskHolder, weights: list[PrunedWeight]) -> None:
        self.plan = lead.plan
        self.schedule: Schedule = lead.plan.schedule
        self.weights = weights
        self._lead = lead
        lead.driven = True

    @property
    def step(self) -> int:
        """Number of training steps begun so far."""
        return self._lead.pruning_step.count

    @step.setter
    def step(self, value: int) -> None:
        self._lead.pruning_step.count = value

    @property
    def held(self) -> bool:
        """Whether the masks are frozen as they are."""
        return bool(self._lead.pruning_held.numpy())

    @held.setter
    def held(self, value: bool) -> None:
        self._lead.pruning_held.assign(value)

    @property
    def data(self) -> Any:
        """The data that the criterion looks at."""
        return self._lead.data

    @data.setter
    def data(self, value: Any) -> None:
        self._lead.set_data(value)

    def due(self, after: int, until: int) -> int | None:
        """Return the update step to serve, if one is due after `after` and by `until`."""
        # Nothing has been served before the first step, so step 0 is due then too.
        return self.schedule.due_step(after or -1, until)

    def update(self, step: int, model: keras.Model, optimizer: Any) -> None:
        """Compute the masks that the schedule wants at `step`, then put them in force."""
        if self.held:
            return
        plan = self.plan.with_schedule(self.schedule)
        probe = Probe(model, self.weights, self.data) if plan.criterion.evidence else None
        masks = compute_masks(self.weights, plan, self.schedule.sparsity_at(step), step, probe)
        for weight, mask in zip(self.weights, masks, strict=True):
            before = weight.alive()
            if not np.array_equal(before, mask):
                weight.mask.assign(mask)
                weight.apply_mask()
                # Weights that grow back start afresh too, so both masks have to keep a slot.
                kept = tf.convert_to_tensor(before & mask)
                reset_pruned_slots(optimizer, weight.variable, kept)
                mask_average(optimizer, weight.variable, weight.mask)
            if plan.criterion.restarts:
                weight.accumulator.assign(keras.ops.zeros_like(weight.accumulator))

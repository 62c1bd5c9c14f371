"""What a pruning run does: schedule, criterion, pattern and allocation, as one saved value."""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass
from typing import Any

from tfprune.allocation import Allocation
from tfprune.configurable import Configurable
from tfprune.criteria import Criterion
from tfprune.errors import InvalidArgumentError
from tfprune.patterns import Pattern
from tfprune.schedules import Keep, Schedule, Threshold, as_schedule


@dataclass(frozen=True)
class PruningPlan:
    """The four choices of a pruning run, and the id that ties the wrappers of one run together.

    Args:
        schedule: when, and how much.
        criterion: which weights matter.
        pattern: which shapes of weights go together.
        allocation: how the sparsity is shared between the weights.
        id: the run's identity.
    """

    schedule: Schedule
    criterion: Criterion
    pattern: Pattern
    allocation: Allocation
    id: str

    @classmethod
    def create(cls, schedule: Any, criterion: Any, pattern: Any, allocation: Any) -> PruningPlan:
        """Check what a user passed - objects, names or numbers - and make a plan with a new id.

        Raises:
            InvalidArgumentError: for an unknown name, or a final sparsity that the pattern cannot
                have.
            InvalidTypeError: for a value of the wrong type.
        """
        plan = cls(
            as_schedule(schedule),
            Criterion.get(criterion),
            Pattern.get(pattern),
            Allocation.get(allocation),
            uuid.uuid4().hex[:12],
        )
        if isinstance(plan.schedule, Keep):
            return plan
        if not isinstance(plan.schedule, Threshold):
            plan.pattern.check_target(plan.schedule.target_sparsity)
        _check_combination(plan.criterion, plan.pattern, plan.allocation)
        return plan

    def with_schedule(self, schedule: Schedule) -> PruningPlan:
        """Return the plan with another schedule, such as the resolved one."""
        return dataclasses.replace(self, schedule=schedule)

    def get_config(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            field.name: value.serialize() if isinstance(value, Configurable) else value
            for field in dataclasses.fields(self)
            for value in [getattr(self, field.name)]
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PruningPlan:
        """Rebuild the plan from `get_config()`."""
        return cls(
            Schedule.get(config["schedule"]),
            Criterion.get(config["criterion"]),
            Pattern.get(config["pattern"]),
            Allocation.get(config["allocation"]),
            config["id"],
        )


def _check_combination(criterion: Criterion, pattern: Pattern, allocation: Allocation) -> None:
    if criterion.scores_outputs and not pattern.whole_outputs:
        raise InvalidArgumentError(
            f"The criterion {criterion.name()!r} gives all weights of one output the same score, "
            "so it can only choose between whole outputs: pass `pattern='filter'`. "
            f"Received: {pattern}"
        )
    if criterion.within_weight and allocation.one_threshold:
        raise InvalidArgumentError(
            f"The scores of {criterion.name()!r} cannot be compared between layers, so one "
            "threshold over all makes no sense: pass `allocation='erk'` or 'uniform'. "
            f"Received: {allocation}"
        )

"""What a pruning run does: schedule, criterion, pattern and allocation, as one saved value."""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass
from typing import Any

from tfprune.allocation import Allocation
from tfprune.configurable import Configurable
from tfprune.criteria import Criterion
from tfprune.patterns import Pattern
from tfprune.schedules import Keep, Schedule, as_schedule


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
        if not isinstance(plan.schedule, Keep):
            plan.pattern.check_target(plan.schedule.target_sparsity)
        return plan

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

"""The dry run: what `prune` would take, how much of it, and what it would leave and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from tfprune.evidence import Probe
from tfprune.mask_computation import compute_masks, plan_sparsities, resolved_plan, shortfalls
from tfprune.masks import kept_weights
from tfprune.model_checks import check_built, check_layer
from tfprune.prunable import SkipReason
from tfprune.pruned_weight import PrunedWeight
from tfprune.pruner import find_holders
from tfprune.pruning_plan import PruningPlan
from tfprune.schedules import Keep, Threshold
from tfprune.selection import Selector, select_weights
from tfprune.text_table import align_columns


@dataclass(frozen=True)
class PlanRow:
    """One weight of the dry run.

    Args:
        path: the weight's path.
        layer: class of the layer that made it.
        shape: the weight's shape.
        parameters: its size.
        sparsity: final sparsity in [0, 1), by today's scores where one threshold over all layers
            decides; `None` where training decides, or where the weight is not pruned.
        reason: why the weight is not pruned; empty if it is.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    parameters: int
    sparsity: float | None
    reason: str

    @property
    def is_pruned(self) -> bool:
        """Whether the weight is pruned."""
        return not self.reason


@dataclass(frozen=True)
class PlanReport:
    """What a pruning run would do; `str()` is a table.

    Args:
        rows: one row per weight, in model order.
        sparsity: final sparsity of all pruned weights together; `None` where training decides.
        total_parameters: parameters of the model, masks not counted.
        warnings: what the pruning will not achieve, in sentences.
    """

    rows: tuple[PlanRow, ...]
    sparsity: float | None
    total_parameters: int
    warnings: tuple[str, ...] = ()

    @property
    def prunable_parameters(self) -> int:
        """Parameters that the plan rules."""
        return sum(row.parameters for row in self.rows if row.is_pruned)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return {
            "sparsity": self.sparsity,
            "prunable_parameters": self.prunable_parameters,
            "total_parameters": self.total_parameters,
            "warnings": list(self.warnings),
            "rows": [asdict(row) for row in self.rows],
        }

    def __str__(self) -> str:
        minor = [row for row in self.rows if row.reason == SkipReason.NOT_A_KERNEL.value]
        lines = [("weight", "layer", "shape", "parameters", "sparsity")]
        lines += [_cells(row) for row in self.rows if row not in minor]
        table = align_columns(lines, right=[3])
        if minor:
            size = sum(row.parameters for row in minor)
            table.append(f"{len(minor)} biases and other vectors with {size:,} parameters: dense")
        share = self.prunable_parameters / self.total_parameters
        goal = "" if self.sparsity is None else f", to a sparsity of {self.sparsity:.2%}"
        table.append(
            f"{self.prunable_parameters:,} of {self.total_parameters:,} parameters ({share:.1%}) "
            f"are pruned{goal}"
        )
        table += [f"warning: {text}" for text in self.warnings]
        return "\n".join(table)


def plan(
    model: keras.layers.Layer,
    schedule: Any = "keep",
    criterion: Any = "magnitude",
    pattern: Any = "unstructured",
    allocation: Any = "uniform",
    *,
    data: Any = None,
    loss: Any = None,
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
) -> PlanReport:
    """Tell what `prune` with the same arguments would do, without doing it.

    Args:
        model: a built model or layer, of any kind.
        schedule: as in `prune`; `"keep"` (default) shows the zeros that are there now.
        criterion: as in `prune`.
        pattern: as in `prune`.
        allocation: as in `prune`.
        data: as in `prune`; needed only where the criterion's scores decide on the sparsities.
        loss: as in `prune_once`.
        include: as in `prune`.
        exclude: as in `prune`.

    Returns:
        The report; print it.

    Raises:
        InvalidArgumentError: for a bad value, or selectors that match nothing.
        UnsupportedModelError: for a tf_keras or unbuilt model.

    Example:
        >>> layers = [keras.Input((8,)), keras.layers.Dense(4, name="head")]
        >>> print(plan(keras.Sequential(layers, name="net"), 0.75))
        weight           layer  shape  parameters  sparsity
        net/head/kernel  Dense  8x4            32  75.00%
        1 biases and other vectors with 4 parameters: dense
        32 of 36 parameters (88.9%) are pruned, to a sparsity of 75.00%
    """
    pruning_plan = PruningPlan.create(schedule, criterion, pattern, allocation)
    check_layer(model)
    check_built(model)
    decided = select_weights(model, include, exclude, pruning_plan.pattern)
    chosen = [c for c in decided if c.reason is None]
    weights = [PrunedWeight(c.variable, c.layout, owners=c.owners, part=c.part) for c in chosen]
    zeros = _final_zeros(weights, pruning_plan, Probe(model, weights, data, loss=loss))
    shares = {id(c): zero / c.layout.size for c, zero in zip(chosen, zeros, strict=False)}
    rows = tuple(
        PlanRow(
            c.path,
            type(c.layer).__name__,
            c.layout.shape,
            c.layout.size,
            shares.get(id(c)),
            c.why,
        )
        for c in decided
    )
    total = sum(int(np.prod(v.shape)) for v in _parameters(model))
    sparsity = sum(zeros) / sum(w.size for w in weights) if zeros else None
    warnings = tuple(shortfalls(weights, zeros)) if zeros else ()
    return PlanReport(rows, sparsity, total, warnings)


def _final_zeros(weights: list[PrunedWeight], pruning_plan: PruningPlan, probe: Probe) -> list[int]:
    """Return how many zeros each weight ends with; nothing where training decides."""
    if isinstance(pruning_plan.schedule, Keep):
        values = (weight.values() for weight in weights)
        return [v.size - int(np.count_nonzero(v)) for v in values]
    pruning_plan = resolved_plan(pruning_plan, weights)
    target = pruning_plan.schedule.target_sparsity
    by_scores = pruning_plan.allocation.one_threshold or isinstance(
        pruning_plan.schedule, Threshold
    )
    if not by_scores:
        sparsities = plan_sparsities(weights, pruning_plan, target)
        return [
            weight.size - kept_weights(weight.layout, sparsity, pruning_plan.pattern)
            for weight, sparsity in zip(weights, sparsities, strict=True)
        ]
    if pruning_plan.criterion.accumulates:
        return []
    masks = compute_masks(weights, pruning_plan, target, probe=probe)
    return [mask.size - int(np.count_nonzero(mask)) for mask in masks]


def _parameters(model: keras.layers.Layer) -> list[keras.Variable]:
    """Return the model's variables without masks and counters."""
    own = {
        id(variable)
        for holder in find_holders(model)
        for variable in holder._non_trainable_variables
    }
    return [variable for variable in model.weights if id(variable) not in own]


def _cells(row: PlanRow) -> tuple[str, ...]:
    if row.reason:
        outcome = f"-  ({row.reason})"
    elif row.sparsity is None:
        outcome = "decided in training"
    else:
        outcome = f"{row.sparsity:.2%}"
    shape = "x".join(map(str, row.shape))
    return row.path, row.layer, shape, f"{row.parameters:,}", outcome

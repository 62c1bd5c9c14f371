"""From weights and a plan to masks: score, allocate, cut. Nothing is changed here."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from tfprune.allocation import WeightInfo
from tfprune.criteria import WeightView
from tfprune.evidence import Probe, gather
from tfprune.masks import ScoredWeight, global_masks, local_mask, threshold_masks
from tfprune.pruned_weight import PrunedWeight
from tfprune.pruning_plan import PruningPlan
from tfprune.schedules import Keep, Threshold


def compute_masks(
    weights: Sequence[PrunedWeight],
    plan: PruningPlan,
    sparsity: float,
    step: int = 0,
    probe: Probe | None = None,
) -> list[np.ndarray]:
    """Score the weights and cut them to a sparsity, without changing anything.

    Args:
        weights: the weights with their present masks.
        plan: criterion, pattern, allocation, and the schedule that the sparsity comes from.
        sparsity: fraction of zeros in [0, 1); ignored if the plan has a threshold.
        step: training step, for criteria that depend on it.
        probe: where criteria that look at model and data find them.

    Returns:
        One boolean array per weight, false where it is pruned.

    Raises:
        InvalidArgumentError: if the scores of a weight are not finite, or the criterion looks at
            data and there is none.
    """
    scored = _scored(weights, plan, step, probe)
    allocation, pattern, schedule = plan.allocation, plan.pattern, plan.schedule
    if isinstance(schedule, Threshold):
        scope = "global" if allocation.one_threshold else "layer"
        return threshold_masks(scored, schedule.threshold, pattern, schedule.relative_to, scope)
    if allocation.one_threshold:
        bounds = allocation.bounds
        return global_masks(scored, sparsity, pattern, *bounds)
    sparsities = plan_sparsities(weights, plan, sparsity)
    if pattern.couples:
        return _coupled_masks(list(scored), sparsities, plan)
    return [
        local_mask(w.scores, s, pattern, layout=w.layout, alive=w.alive, path=w.path)
        for w, s in zip(scored, sparsities, strict=True)
    ]


def plan_sparsities(
    weights: Sequence[PrunedWeight], plan: PruningPlan, sparsity: float
) -> list[float]:
    """Return the sparsity that the plan's allocation gives each weight.

    Args:
        weights: the weights.
        plan: the plan; not one with a threshold.
        sparsity: the schedule's sparsity now.
    """
    return plan.allocation.sparsities(sparsity, describe(weights), plan.schedule.target_sparsity)


def ready_plan(plan: PruningPlan, weights: Sequence[PrunedWeight]) -> PruningPlan:
    """Return the plan as it can be saved, and warn of a target at which no runtime gets faster.

    Raises:
        InvalidArgumentError: as `resolved_plan`.
    """
    plan = resolved_plan(plan, weights)
    if not isinstance(plan.schedule, Keep | Threshold):
        sparsities = plan_sparsities(weights, plan, plan.schedule.target_sparsity)
        zeros = [round(w.size * s) for w, s in zip(weights, sparsities, strict=True)]
        for text in shortfalls(weights, zeros):
            warnings.warn(text, stacklevel=3)
    return plan


def resolved_plan(plan: PruningPlan, weights: Sequence[PrunedWeight]) -> PruningPlan:
    """Return the plan as it can be saved, after checking that it fits the weights.

    Raises:
        InvalidArgumentError: if the allocation cannot give the weights what the schedule asks.
    """
    plan = dataclasses.replace(plan, allocation=plan.allocation.resolved(describe(weights)))
    if not isinstance(plan.schedule, Keep | Threshold):
        plan_sparsities(weights, plan, plan.schedule.target_sparsity)
    return plan


def shortfalls(weights: Sequence[PrunedWeight], zeros: Sequence[int]) -> list[str]:
    """Return in words which parts of the model will run dense for want of zeros.

    Args:
        weights: the weights that are pruned.
        zeros: how many zeros each of them will have.
    """
    planned = {id(w.variable): count for w, count in zip(weights, zeros, strict=True)}
    parts = dict.fromkeys(weight.part for weight in weights if weight.part is not None)
    return list(filter(None, (part.shortfall(planned) for part in parts)))


def describe(weights: Sequence[PrunedWeight]) -> list[WeightInfo]:
    """Return what an allocation may know of the weights."""
    return [WeightInfo(w.path, w.layout, tuple(owner.name for owner in w.owners)) for w in weights]


def _scored(
    weights: Sequence[PrunedWeight], plan: PruningPlan, step: int, probe: Probe | None
) -> Iterator[ScoredWeight]:
    criterion = plan.criterion
    gathered = gather(criterion.evidence, probe) if criterion.evidence else [{} for _ in weights]
    progress = 0.0 if plan.schedule.end_step is None else plan.schedule.progress_at(step)
    for weight, evidence in zip(weights, gathered, strict=True):
        alive = weight.alive()
        if weight.accumulator is not None:
            evidence["accumulated"] = np.asarray(weight.accumulator)
        view = WeightView(
            weight.values(), weight.path, step, weight.layout, alive, progress, evidence
        )
        scores = plan.allocation.rescale(criterion.score(view), alive)
        bound = None if criterion.scores_pruned else alive
        yield ScoredWeight(scores, weight.layout, bound, weight.path, _group(weight))


def _group(weight: PrunedWeight) -> Hashable | None:
    """Return what ties the kernels of one attention layer together."""
    has_heads = weight.layout.heads is not None
    return id(weight.owners[-2]) if has_heads and len(weight.owners) > 1 else None


def _coupled_masks(
    scored: list[ScoredWeight], sparsities: list[float], plan: PruningPlan
) -> list[np.ndarray]:
    """Cut each group of coupled weights as one, to the sparsity that its members have together."""
    members: dict[Hashable, list[int]] = {}
    for index, weight in enumerate(scored):
        members.setdefault(index if weight.group is None else weight.group, []).append(index)
    masks: dict[int, np.ndarray] = {}
    for indices in members.values():
        sizes = [scored[index].scores.size for index in indices]
        sparsity = float(np.average([sparsities[index] for index in indices], weights=sizes))
        group = global_masks([scored[index] for index in indices], sparsity, plan.pattern)
        masks.update(zip(indices, group, strict=True))
    return [masks[index] for index in range(len(scored))]

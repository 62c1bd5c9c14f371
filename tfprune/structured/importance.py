"""How much each unit matters: a criterion's scores, summed over all that goes with the unit.

A unit is an output of one kernel, an input of another, and more in a residual network; what is lost
with it is the sum over all these slices (Fang et al., 2023, "DepGraph"). Criteria that score whole
outputs are summed over the layers that make the unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.criteria import Criterion, WeightView
from tfprune.errors import InvalidArgumentError
from tfprune.evidence import Probe, check_data, gather
from tfprune.prunable import Candidate, SkipReason, find_candidates
from tfprune.pruned_weight import PrunedWeight
from tfprune.structured.graph import ChannelGraph
from tfprune.structured.groups import ChannelGroup

_KERNELS = (None, SkipReason.ON_REQUEST, SkipReason.FROZEN)


def check_criterion(criterion: Any, data: Any) -> Criterion:
    """Turn a name into a criterion, and refuse one that cannot be used here.

    Raises:
        InvalidArgumentError: for an unknown name, missing data, or a criterion that sums over
            training steps.
        InvalidTypeError: for something that is no criterion.
    """
    criterion = Criterion.get(criterion)
    if criterion.accumulates:
        raise InvalidArgumentError(
            f"The criterion {criterion.name()!r} sums over training steps, and there are none "
            "here: score with 'taylor' and `data=`."
        )
    check_data(criterion.evidence, data)
    return criterion


def score_units(
    graph: ChannelGraph,
    groups: Sequence[ChannelGroup],
    criterion: Criterion,
    *,
    data: Any = None,
    loss: Any = None,
    verbose: bool = False,
) -> np.ndarray:
    """Score the units of some groups.

    Args:
        graph: the channels of a model.
        groups: the groups to score.
        criterion: the criterion.
        data: as in `tfprune.shrink`.
        loss: as in `tfprune.shrink`.
        verbose: whether a progress bar is shown while data are read.

    Returns:
        Float array over all ids of the graph; the higher, the more the unit matters.

    Raises:
        InvalidArgumentError: if scores are not finite, or the criterion sees nothing of a group.
    """
    if criterion.evidence == ("norm_scale",):
        return _norm_scales(graph, groups)
    wanted = np.zeros(graph.size, bool)
    for group in groups:
        wanted[group.units] = True
    candidates = [c for c in _kernels(graph) if _touches(graph, c.variable, wanted)]
    makers = {id(axis.variable) for axis in graph.axes if axis.makes}
    if criterion.scores_outputs:
        candidates = [c for c in candidates if id(c.variable) in makers]
    weights = [PrunedWeight(c.variable, c.layout, owners=c.owners) for c in candidates]
    probe = Probe(graph.model, weights, data, loss=loss, verbose=verbose)
    evidence = gather(criterion.evidence, probe) if criterion.evidence else [{} for _ in weights]
    scores = np.zeros(graph.size)
    for weight, found in zip(weights, evidence, strict=True):
        view = WeightView(weight.values(), weight.path, layout=weight.layout, evidence=found)
        values = criterion.score(view)
        for axis, ids in enumerate(graph.book.weights[id(weight.variable)].ids):
            is_output = axis in weight.layout.output_axes
            if ids is None or (criterion.scores_outputs and not is_output):
                continue
            others = tuple(a for a in range(values.ndim) if a != axis)
            # All weights of an output have the same score there, which is that of the unit.
            reduce = np.mean if criterion.scores_outputs else np.sum
            along = reduce(values, axis=others, dtype=np.float64)
            np.add.at(scores, graph.units(ids), along)
    if not np.isfinite(scores).all():
        raise InvalidArgumentError(
            f"The criterion {criterion.name()!r} gives scores that are not finite: look for NaN or "
            "infinite numbers in the weights and the data."
        )
    return scores


def _norm_scales(graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> np.ndarray:
    """Sum |gamma| over the normalization layers of each unit."""
    scores = np.zeros(graph.size)
    seen = np.zeros(graph.size, bool)
    for axis in graph.axes:
        if axis.weight.rpartition("/")[2] == "gamma":
            values = np.abs(keras.ops.convert_to_numpy(axis.variable).astype(np.float64))
            others = tuple(a for a in range(values.ndim) if a != axis.axis)
            np.add.at(scores, axis.units, values.sum(axis=others))
            seen[axis.units] = True
    without = [group.name for group in groups if not seen[group.units].all()]
    if without:
        raise InvalidArgumentError(
            "This criterion reads the scale (gamma) of the normalization layers that a channel "
            f"goes through, and there are none for: {', '.join(without)}. Leave these alone with "
            "`exclude=`, or choose another criterion."
        )
    return scores


def _kernels(graph: ChannelGraph) -> list[Candidate]:
    return [
        candidate
        for candidate in find_candidates(graph.model)
        if candidate.reason in _KERNELS and id(candidate.variable) in graph.book.weights
    ]


def _touches(graph: ChannelGraph, variable: keras.Variable, wanted: np.ndarray) -> bool:
    axes = graph.book.weights[id(variable)].ids
    return any(ids is not None and wanted[graph.units(ids)].any() for ids in axes)

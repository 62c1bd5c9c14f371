"""Clusters: operators that XNNPACK runs in channels-first layout together, or not at all."""

from __future__ import annotations

from dataclasses import dataclass

from tfprune.export.sparse_runtime.delegation import splits, undelegated_before
from tfprune.export.sparse_runtime.graph import Graph, Operator
from tfprune.export.sparse_runtime.rules import (
    MIN_SPARSITY,
    Role,
    Verdict,
    is_pointwise,
)


@dataclass(frozen=True)
class Cluster:
    """Connected operators that have a channels-first form.

    Args:
        operators: their indices.
        pointwise: the indices of its 1x1 convolutions, which would run sparse.
        zeros: zeros in the filters of those.
        weights: all values in the filters of those.
        encoded: whether there are weights in the sparse encoding, anywhere in the file: that is
            what makes the runtime look for zeros, in filters that are stored dense as well.
        leaks: how it ends elsewhere than at a mean over space or at DEPTH_TO_SPACE, or is handed
            to XNNPACK in pieces, in words. Such a cluster may compute garbage in sparse mode.
        strangers: what else keeps it from switching to sparse mode, in words.
        neighbors: the operators outside that those are about.
    """

    operators: tuple[int, ...]
    pointwise: tuple[int, ...]
    zeros: int
    weights: int
    encoded: bool
    leaks: tuple[str, ...]
    strangers: tuple[str, ...]
    neighbors: tuple[int, ...]

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over all 1x1 filters."""
        return self.zeros / self.weights if self.weights else 0.0

    @property
    def fits(self) -> bool:
        """Whether the cluster can switch to sparse mode as far as its operators are concerned."""
        return bool(self.pointwise) and not self.leaks and not self.strangers

    @property
    def is_sparse_enough(self) -> bool:
        """Whether its filters have the zeros that the mode asks for."""
        return self.sparsity > MIN_SPARSITY


def find_clusters(graph: Graph, verdicts: list[Verdict]) -> list[Cluster]:
    """Return all clusters of a graph, in the order of their first operators.

    Args:
        graph: the graph.
        verdicts: what `judge` says of each of its operators.
    """
    members = {op.index: {op.index} for op in graph.operators if is_member(verdicts[op.index])}
    for op in graph.operators:
        if op.index not in members or _starts(graph, op, verdicts):
            continue
        for tensor in graph.activations(op):
            producer = graph.producers.get(tensor)
            if producer is not None and producer.index in members:
                joined = members[producer.index] | members[op.index]
                for index in joined:
                    members[index] = joined
    unique = {min(cluster): cluster for cluster in members.values()}
    before = undelegated_before(graph)
    return [_cluster(graph, sorted(unique[first]), verdicts, before) for first in sorted(unique)]


def find_active(graph: Graph, verdicts: list[Verdict]) -> list[Cluster]:
    """Return the clusters that XNNPACK may switch to sparse mode, by the most careful reading.

    Recent versions make a matrix product of a 1x1 convolution, whatever its dilation, and take
    matrix products of maps for members. What reads anything but a cluster is none, and neither
    is what reads that: XNNPACK leaves those alone.
    """
    active = list(verdicts)
    for op in graph.operators:
        if _is_product_of_maps(graph, op):
            active[op.index] = Verdict(Role.INSIDE)
        if not is_member(active[op.index]) or _starts(graph, op, active):
            continue
        producers = [graph.producers.get(tensor) for tensor in graph.activations(op)]
        if any(producer is None or not is_member(active[producer.index]) for producer in producers):
            active[op.index] = Verdict(Role.OUTSIDE, "reads channels-last data")
    return find_clusters(graph, active)


def _is_product_of_maps(graph: Graph, op: Operator) -> bool:
    if op.name == "FULLY_CONNECTED":
        return len(graph.tensors[op.inputs[0]].shape) == 4 and (
            graph.constant(op.inputs[1]) is not None
        )
    return op.name == "CONV_2D" and is_pointwise(graph, op)


def is_member(verdict: Verdict) -> bool:
    """Whether an operator is part of a cluster."""
    return verdict.role is not Role.OUTSIDE


def _starts(graph: Graph, op: Operator, verdicts: list[Verdict]) -> bool:
    """Whether an operator reads channels-last data: the stem, or its PAD if it has one."""
    if verdicts[op.index].role is not Role.ENTRY:
        return False
    producer = graph.producers.get(op.inputs[0])
    return op.name == "PAD" or producer is None or producer.name != "PAD"


def _cluster(
    graph: Graph, indices: list[int], verdicts: list[Verdict], before: list[frozenset[int]]
) -> Cluster:
    own = set(indices)
    operators = [graph.operators[index] for index in indices]
    pointwise = [op for op in operators if is_pointwise(graph, op) or op.name == "FULLY_CONNECTED"]
    counts = [graph.zeros(op.inputs[1]) for op in pointwise]
    leaks = [leak for op in operators for leak in _leaks(graph, op, verdicts[op.index], own)]
    leaks += [(words, splitter) for words, splitter in splits(graph, indices, before)]
    strangers = [other for op in operators for other in _strangers(graph, op, verdicts, own)]
    neighbors = {index for _, index in (*leaks, *strangers) if index is not None}
    return Cluster(
        operators=tuple(indices),
        pointwise=tuple(op.index for op in pointwise),
        zeros=sum(zeros for zeros, _ in counts),
        weights=sum(size for _, size in counts),
        encoded=graph.is_sparse_encoded,
        leaks=tuple(words for words, _ in leaks),
        strangers=tuple(words for words, _ in strangers),
        neighbors=tuple(sorted(neighbors)),
    )


def _leaks(
    graph: Graph, op: Operator, verdict: Verdict, own: set[int]
) -> list[tuple[str, int | None]]:
    """Return who reads what an operator leaves in channels-first layout: words, and the reader."""
    if verdict.role is Role.EXIT:
        return []
    found: list[tuple[str, int | None]] = []
    for tensor in op.outputs:
        if tensor in graph.outputs:
            found.append((f"#{op.index} {op.name} is an output of the model", None))
        for consumer in graph.consumers.get(tensor, []):
            if consumer.index not in own:
                words = f"#{op.index} {op.name} feeds #{consumer.index} {consumer.name}"
                found.append((words, consumer.index))
    return found


def _strangers(
    graph: Graph, op: Operator, verdicts: list[Verdict], own: set[int]
) -> list[tuple[str, int | None]]:
    """Return what gives an operator channels-last data: words, and the producer."""
    if _starts(graph, op, verdicts):
        return []
    found: list[tuple[str, int | None]] = []
    for tensor in graph.activations(op):
        producer = graph.producers.get(tensor)
        if producer is None:
            found.append((f"#{op.index} {op.name} reads the input of the model", None))
        elif producer.index not in own:
            words = f"#{op.index} {op.name} reads #{producer.index} {producer.name}"
            found.append((words, producer.index))
    return found

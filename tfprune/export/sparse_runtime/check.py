"""`check_file`: whether XNNPACK runs a file in sparse mode, and if not, what is in the way.

The rules are static: nothing is run, and a file is judged on any machine for the phones that it
goes to. That matters, since sparse mode is off on x86 with AVX: a laptop shows neither its gain
nor the garbage that a wrong file computes in it.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfprune.export.sparse_runtime.clusters import Cluster, find_active, find_clusters
from tfprune.export.sparse_runtime.graph import Graph, read_graph
from tfprune.export.sparse_runtime.rules import MIN_SPARSITY, Role, Verdict, judge
from tfprune.text_table import align_columns


@dataclass(frozen=True)
class OperatorReport:
    """One operator.

    Args:
        index: its place in the order of execution.
        name: its name, such as "CONV_2D".
        runs_sparse: whether it is a 1x1 convolution that runs sparse.
        in_cluster: whether it has a channels-first form.
        reason: why it has none; empty if it has.
        remedy: what would change that; empty if nothing is known.
    """

    index: int
    name: str
    runs_sparse: bool
    in_cluster: bool
    reason: str
    remedy: str


@dataclass(frozen=True)
class SparseRuntimeReport:
    """What XNNPACK's sparse mode makes of a file.

    Args:
        file: the file.
        operators: all operators, in the order of execution.
        clusters: the clusters of operators.
        traps: what makes the file compute garbage, or not load, on some runtimes.
    """

    file: str
    operators: tuple[OperatorReport, ...]
    clusters: tuple[Cluster, ...]
    traps: tuple[str, ...]

    @property
    def runs_sparse(self) -> bool:
        """Whether a part of the model runs in sparse mode, on the runtimes that have it."""
        return any(operator.runs_sparse for operator in self.operators)

    @property
    def is_ready(self) -> bool:
        """Whether the model may be sparse-encoded, and gains by it once it is sparse enough."""
        fitting = [cluster for cluster in self.clusters if cluster.fits]
        # A cluster without 1x1 filters never switches.
        return bool(fitting) and not any(c.leaks for c in self.clusters if c.pointwise)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.traps:
            return "not safe to ship: it is wrong, or does not load, on some runtimes"
        if self.runs_sparse:
            count = sum(operator.runs_sparse for operator in self.operators)
            return f"runs sparse: {count} of its 1x1 convolutions, on arm64 and in browsers"
        if not self.is_ready:
            return "runs dense: its operators keep it out of sparse mode"
        fitting = [cluster for cluster in self.clusters if cluster.fits]
        if not any(cluster.is_sparse_enough for cluster in fitting):
            return f"runs dense: {too_few_zeros(max(cluster.sparsity for cluster in fitting))}"
        return "runs dense: its weights are not in the sparse encoding; export it with that"

    @property
    def blockers(self) -> dict[tuple[str, str], int]:
        """How many operators next to a cluster keep it out, by reason and remedy."""
        neighbors = {index for cluster in self.clusters for index in cluster.neighbors}
        return Counter(
            (operator.reason, operator.remedy)
            for operator in self.operators
            if operator.index in neighbors and operator.reason
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found = {"runs_sparse": self.runs_sparse, "is_ready": self.is_ready}
        return {**asdict(self), **found, "verdict": self.verdict}

    def __str__(self) -> str:
        """Return the findings as text, the operators in the way grouped by reason."""
        lines = [f"{self.file}: {self.verdict}"]
        lines += [f"trap: {trap}" for trap in self.traps]
        if self.blockers:
            rows = [["operators", "in the way", "what would help"]]
            rows += [[str(count), *words] for words, count in self.blockers.items()]
            lines += ["", *align_columns(rows, right=[0])]
        rows = [["cluster", "operators", "1x1", "zeros", "encoded", "blocked, since"]]
        for number, cluster in enumerate(self.clusters, start=1):
            ways = [*cluster.leaks, *cluster.strangers] if cluster.pointwise else ["no 1x1 filters"]
            more = f" and {len(ways) - 1} more" if len(ways) > 1 else ""
            rows.append(
                [
                    str(number),
                    str(len(cluster.operators)),
                    str(len(cluster.pointwise)),
                    f"{cluster.sparsity:.1%}",
                    "yes" if cluster.encoded else "no",
                    f"{ways[0]}{more}" if ways else "-",
                ]
            )
        return "\n".join([*lines, "", *align_columns(rows, right=range(4))])


def too_few_zeros(sparsity: float) -> str:
    """Say that the 1x1 filters are not sparse enough."""
    return (
        f"its 1x1 filters have {sparsity:.1%} zeros, and sparse mode asks for more than "
        f"{MIN_SPARSITY:.1%}"
    )


def check_file(path: str | os.PathLike) -> SparseRuntimeReport:
    """Judge a `.tflite` file of anyone's making by the rules of XNNPACK's sparse mode.

    Args:
        path: the file.

    Returns:
        The report; `str` of it is a table.

    Raises:
        ArtifactError: the file is missing, damaged, or no TFLite model.
    """
    return check_graph(read_graph(path), os.fspath(Path(path)))


def check_graph(graph: Graph, file: str) -> SparseRuntimeReport:
    """Judge a graph; `file` is what the report calls it."""
    verdicts = [judge(graph, op) for op in graph.operators]
    clusters = find_clusters(graph, verdicts)
    sparse = {
        index
        for cluster in clusters
        if cluster.fits and cluster.is_sparse_enough and cluster.encoded
        for index in cluster.pointwise
    }
    operators = tuple(
        OperatorReport(
            index=op.index,
            name=op.name,
            runs_sparse=op.index in sparse,
            in_cluster=verdict.role is not Role.OUTSIDE,
            reason=verdict.reason,
            remedy=verdict.remedy,
        )
        for op, verdict in zip(graph.operators, verdicts, strict=True)
        if op.name not in ("DENSIFY", "DEQUANTIZE") or graph.constant(op.inputs[0]) is None
    )
    return SparseRuntimeReport(
        file, operators, tuple(clusters), tuple(_traps(graph, verdicts, clusters))
    )


def _traps(graph: Graph, verdicts: list[Verdict], clusters: list[Cluster]) -> list[str]:
    """Return what is known to break sparse-encoded files."""
    if not graph.is_sparse_encoded:
        return []
    found = []
    for cluster in (*clusters, *find_active(graph, verdicts)):
        if cluster.leaks and cluster.pointwise:
            found.append(
                "sparse-encoded, and a cluster ends elsewhere than at a mean over space or "
                f"DEPTH_TO_SPACE ({cluster.leaks[0]}): outputs may be garbage on arm64 and in "
                "browsers while they are right on x86 with AVX. Export it dense."
            )
    for op in graph.operators:
        if op.name not in ("CONV_2D", "FULLY_CONNECTED"):
            continue
        weights = graph.constant(op.inputs[1])
        if weights is None or not weights.sparse or weights.dtype != "INT8":
            continue
        if graph.tensors[op.inputs[0]].dtype == "FLOAT32":
            found.append(
                f"#{op.index} {op.name} has sparse int8 weights and float activations (dynamic "
                "range): LiteRT refuses to load it. Use int8 activations, or dense weights."
            )
        elif op.name == "FULLY_CONNECTED":
            found.append(
                f"#{op.index} {op.name} has sparse int8 weights: LiteRT refuses to load it. Leave "
                "its weights dense."
            )
    return list(dict.fromkeys(found))

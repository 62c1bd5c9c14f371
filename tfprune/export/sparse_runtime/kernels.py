"""Which kernels of a Keras model run sparse in XNNPACK once it is exported.

The exporter itself is asked, so that what it rewrites and what the sparse mode takes stand in one
place only. A copy of the model, in which each kernel has a number of zeros of its own, is written
as it would be for a phone; in the file, the kernels are recognized by their numbers, which survive
transposition, folded batch normalization and the sparse encoding.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv

from tfprune.cloning import is_rebuildable
from tfprune.errors import InvalidTypeError, UnsupportedModelError
from tfprune.export.sparse_runtime.check import SparseRuntimeReport, check_file
from tfprune.export.sparse_runtime.clusters import Cluster
from tfprune.export.sparse_runtime.graph import Graph, Operator, read_graph
from tfprune.export.sparse_runtime.rules import MIN_SPARSITY
from tfprune.plain_copy import plain_copy
from tfprune.prunable import Candidate, SkipReason
from tfprune.sparse_part import SparsePart

_RUNTIME = "XNNPACK's sparse mode"
_SPARSITY = 0.9
_SEED = 0
_FOUND: WeakKeyDictionary[keras.Model, tuple[tuple, dict]] = WeakKeyDictionary()
# Inputs, outputs and non-zero values of a matrix of weights.
Mark = tuple[int, int, int]


def sparse_kernels(
    model: Any, candidates: Sequence[Candidate], input_shape: tuple[int, ...] | None = None
) -> dict[int, SparsePart | str]:
    """Export a copy of a model to find out which of its kernels run sparse.

    Args:
        model: a built Keras model, with or without pruning wrappers. A subclassed one is changed,
            and is as it was when this returns.
        candidates: its weights.
        input_shape: size of the input if the model leaves it open, without the batch axis.

    Returns:
        For each weight by its `id`: the part of the model in which it runs sparse, or, in words,
        why it runs dense.

    Raises:
        UnsupportedModelError: no kernel runs sparse, or the model cannot be exported.
        InvalidTypeError: it is no Keras model.
    """
    if not isinstance(model, keras.Model):
        raise InvalidTypeError(
            "What XNNPACK runs sparse depends on the layers around a layer: prune a whole "
            f"keras.Model. Received: {type(model).__name__}."
        )
    kernels = [c for c in candidates if _is_kernel(c)]
    # Values do not matter, so what `plan` found out holds for the `prune` that follows.
    key = (input_shape, *(id(c.variable) for c in candidates))
    known, found = _FOUND.get(model, (None, {}))
    if known != key:
        found = _found(model, candidates, kernels, input_shape)
        _FOUND[model] = key, found
    return found


def _found(
    model: keras.Model,
    candidates: Sequence[Candidate],
    kernels: Sequence[Candidate],
    input_shape: tuple[int, ...] | None,
) -> dict[int, SparsePart | str]:
    marks = _distinct_marks(kernels)
    with tempfile.TemporaryDirectory() as folder, _marked(model, kernels, marks) as marked:
        path = Path(folder, "model.tflite")
        note = _write(marked, path, input_shape)
        report, graph = check_file(path), read_graph(path)
    if not report.runs_sparse or report.traps:
        raise _nothing_runs_sparse(model, report, note)
    sparse = {operator.index for operator in report.operators if operator.runs_sparse}
    readers = _readers_by_mark(graph)
    found: dict[int, SparsePart | str] = {id(c.variable): _kind(c) for c in candidates}
    for kernel, mark in zip(kernels, marks, strict=True):
        if obstacle := _obstacle(graph, report, readers.get(mark, [])):
            found[id(kernel.variable)] = obstacle
    for cluster in report.clusters:
        inside = [
            (kernel, mark)
            for kernel, mark in zip(kernels, marks, strict=True)
            if sparse & {*cluster.pointwise} & {*readers.get(mark, [])}
        ]
        part = _part(cluster, inside)
        found.update((id(kernel.variable), part) for kernel, _ in inside)
    return found


def _is_kernel(candidate: Candidate) -> bool:
    """Whether a weight is a stack of matrices that may become 1x1 filters."""
    taken = candidate.reason in (None, SkipReason.FROZEN)
    return taken and len(candidate.layout.shape) in (2, 4)


def _distinct_marks(kernels: Sequence[Candidate]) -> list[Mark]:
    """Return for each kernel the non-zero values that each of its taps gets: equal for no two."""
    used: Counter[tuple[int, int]] = Counter()
    marks = []
    for kernel in kernels:
        _, inputs, outputs = kernel.layout.taps_shape
        count = max(round((1 - _SPARSITY) * inputs * outputs), 1) + used[inputs, outputs]
        used[inputs, outputs] += 1
        marks.append((inputs, outputs, min(count, inputs * outputs)))
    return marks


@contextlib.contextmanager
def _marked(
    model: keras.Model, kernels: Sequence[Candidate], marks: Sequence[Mark]
) -> Iterator[keras.Model]:
    """Give a copy of a model with marked kernels; for a class of its own, itself for a while."""
    copy_of = {id(kernel.variable): kernel.variable for kernel in kernels}
    if is_rebuildable(model):
        model, copy_of = plain_copy(model)
    variables = [copy_of[id(kernel.variable)] for kernel in kernels]
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    rng = np.random.default_rng(_SEED)
    try:
        for variable, value, kernel, mark in zip(variables, values, kernels, marks, strict=True):
            variable.assign(_mark_values(value, kernel, mark, rng))
        yield model
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _mark_values(
    values: np.ndarray, kernel: Candidate, mark: Mark, rng: np.random.Generator
) -> np.ndarray:
    """Return random values of the same energy, so that activations stay in their range."""
    inputs, outputs, count = mark
    taps = kernel.layout.taps_shape[0]
    energy = float(np.square(values.astype(np.float32)).sum()) or 1.0
    marked = np.zeros((taps, inputs * outputs), np.float32)
    for row in marked:
        places = rng.choice(row.size, count, replace=False)
        row[places] = rng.choice([-1, 1], count) * np.sqrt(energy / (taps * count))
    return kernel.layout.from_taps(marked).astype(values.dtype)


def _write(model: keras.Model, path: Path, input_shape: tuple[int, ...] | None) -> str:
    """Write a model as it is exported for phones; return what the exporter says of it."""
    from tfprune.export.exportable import plain_model
    from tfprune.export.formats import Source, resolve_formats
    from tfprune.export.signature import signature_of

    signature = signature_of(model, batch_size=1, input_shape=input_shape)
    source = Source(plain_model(model), signature, representative=None, work=path.parent)
    return resolve_formats("tflite")[0].write(source, path)


def _readers_by_mark(graph: Graph) -> dict[Mark, list[int]]:
    """Return the operators that multiply with a matrix, by what is not zero in it."""
    readers: dict[Mark, list[int]] = {}
    for op in graph.operators:
        if op.name != "FULLY_CONNECTED" and not _has_1x1_filter(graph, op):
            continue
        if graph.constant(op.inputs[1]) is None:
            continue
        shape = graph.tensors[op.inputs[1]].shape
        zeros, size = graph.zeros(op.inputs[1])
        readers.setdefault((shape[-1], shape[0], size - zeros), []).append(op.index)
    return readers


def _has_1x1_filter(graph: Graph, op: Operator) -> bool:
    return op.name == "CONV_2D" and graph.tensors[op.inputs[1]].shape[1:3] == (1, 1)


def _part(cluster: Cluster, inside: Sequence[tuple[Candidate, Mark]]) -> SparsePart:
    sizes = [kernel.layout.size for kernel, _ in inside]
    kept = [kernel.layout.taps_shape[0] * count for kernel, (_, _, count) in inside]
    return SparsePart(
        _RUNTIME,
        MIN_SPARSITY,
        tuple(kernel.variable for kernel, _ in inside),
        other_weights=cluster.weights - sum(sizes),
        other_zeros=cluster.zeros - (sum(sizes) - sum(kept)),
    )


def _obstacle(graph: Graph, report: SparseRuntimeReport, readers: Sequence[int]) -> str:
    """Say what keeps a matrix that is in the file out of the clusters that run sparse."""
    by_index = {operator.index: operator for operator in report.operators}
    for index in readers:
        operator = by_index[index]
        if operator.name == "FULLY_CONNECTED":
            return "behind the pooling over space"
        op = graph.operators[index]
        if not operator.in_cluster and graph.tensors[op.inputs[0]].shape[1:3] == (1, 1):
            return "behind the pooling over space"
        if not operator.in_cluster and _has_1x1_filter(graph, op):
            return "predicted to be faster outside of sparse mode"
        if not operator.in_cluster:
            return operator.reason
        for cluster in report.clusters:
            if index in cluster.pointwise and (cluster.leaks or cluster.strangers):
                return f"cut off: {(*cluster.leaks, *cluster.strangers)[0]}"
    return ""


def _kind(candidate: Candidate) -> str:
    """Say what a weight is, which explains best why it does not run sparse."""
    taps = "x".join(map(str, candidate.layout.shape[:-2]))
    layer = candidate.layer
    if isinstance(layer, BaseDepthwiseConv) or candidate.reason is SkipReason.ON_REQUEST:
        return f"a {taps} depthwise convolution"
    if isinstance(layer, BaseConv) and candidate.layout.taps_shape[0] > 1:
        return f"a {taps} convolution"
    return f"a weight of {type(layer).__name__}, not of a 1x1 convolution inside a cluster"


def _nothing_runs_sparse(
    model: keras.Model, report: SparseRuntimeReport, note: str
) -> UnsupportedModelError:
    obstacles = [
        f"{count} x {reason}" + f" (to help: {remedy})" * bool(remedy)
        for (reason, remedy), count in report.blockers.items()
    ]
    in_the_way = f" In the way: {'; '.join(obstacles[:3])}." if obstacles else ""
    return UnsupportedModelError(
        f"Nothing in {model.name!r} runs sparse in XNNPACK, so the pattern 'xnnpack' has nothing "
        f"to prune.{in_the_way} An export would say: {note} For files that are only smaller, use "
        "another pattern."
    )

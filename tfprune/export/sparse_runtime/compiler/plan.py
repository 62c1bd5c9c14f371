"""Which operators go into sparse mode: the choice that costs least over the whole network.

Each operator costs something inside and something outside, and so does each tensor that crosses the
border, once however many read it on the other side. That is a minimum cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tfprune.export.sparse_runtime.compiler.borders import enter, leave
from tfprune.export.sparse_runtime.compiler.costs import CostModel
from tfprune.export.sparse_runtime.compiler.cut import SINK, SOURCE, CutGraph
from tfprune.export.sparse_runtime.compiler.emitter import Emitter
from tfprune.export.sparse_runtime.compiler.lowering import (
    Context,
    NotLoweredError,
    Parts,
    is_stem,
    lower,
)
from tfprune.export.sparse_runtime.compiler.program import Op, Program, Tensor


@dataclass(frozen=True)
class Estimate:
    """What each operator would cost.

    Args:
        dense: milliseconds outside, by operator.
        sparse: milliseconds inside, by operator; infinite for one that has no form there.
        reasons: why those have none.
        parts: the parts of each tensor, if all that can be were inside.
        stems: the convolutions that enter by themselves, since what they read is never inside.
    """

    dense: dict[Op, float]
    sparse: dict[Op, float]
    reasons: dict[Op, str]
    parts: dict[Tensor, Parts]
    stems: set[Op]


def estimate(program: Program, context: Context) -> Estimate:
    """Lower every operator by itself, to see what it costs."""
    found = Estimate({}, {}, {}, {}, set())
    emitter = Emitter()
    for op in program.ops:
        found.dense[op] = context.costs.dense(op)
        if is_stem(op) and op.inputs[0] not in found.parts:
            found.stems.add(op)
            found.sparse[op], found.parts[op.output] = context.costs.sparse(op), [op.output]
            continue
        attempt = emitter.fork()
        inputs = [found.parts.get(x, [x]) for x in op.activations]
        try:
            parts = lower(attempt, op, inputs, context)
        except NotLoweredError as error:
            found.sparse[op], found.reasons[op] = math.inf, str(error)
        else:
            found.sparse[op] = context.costs.total(attempt.ops)
            if not is_way_out(op):
                found.parts[op.output] = parts
            emitter.taps = attempt.taps
    return found


def choose(
    program: Program,
    costs: CostModel,
    estimated: Estimate,
    forbidden: set[Op],
    dense_weight: float = 1.0,
) -> set[Op]:
    """Return the operators that go inside.

    Args:
        program: the program.
        costs: prices borders.
        estimated: prices operators.
        forbidden: operators that must stay outside.
        dense_weight: factor on what operators cost outside; more brings more inside.
    """
    graph = CutGraph()
    large = 1e9 * dense_weight  # More than any choice of the others could pay for.
    consumers = program.consumers()
    producers = program.producers()
    for op in program.ops:
        inside = estimated.sparse[op]
        graph.connect(SOURCE, op, dense_weight * estimated.dense[op])
        graph.connect(op, SINK, large if op in forbidden or math.isinf(inside) else inside)
    for tensor in {*program.inputs, *producers}:
        if not tensor.is_map and not _is_mean(producers.get(tensor)):
            continue
        producer = producers.get(tensor, SINK)
        if is_way_out(producer):
            producer = SINK  # What it computes is outside, wherever it is itself.
        readers = consumers.get(tensor, [])
        gate = (tensor, "enters")
        if tensor.is_map:
            graph.connect(gate, producer, _price(costs, tensor, entering=True))
            for reader in readers:
                if reader not in estimated.stems:
                    graph.connect(reader, gate, large)
        if producer is not SINK and not _is_mean(producer):
            exits = (tensor, "leaves")
            graph.connect(producer, exits, _price(costs, tensor, entering=False))
            for reader in readers:
                graph.connect(exits, reader, large)
            if tensor in program.outputs:
                graph.connect(exits, SINK, large)
    return {node for node in graph.source_side() if isinstance(node, Op)}


def is_way_out(op: Op) -> bool:
    """Whether what an operator computes inside is outside."""
    return isinstance(op, Op) and op.code == "DEPTH_TO_SPACE"


def _is_mean(producer: Op | None) -> bool:
    return producer is not None and producer.code == "MEAN"


def _price(costs: CostModel, tensor: Tensor, entering: bool) -> float:
    emitter = Emitter()
    if entering:
        enter(emitter, tensor)
    else:
        leave(emitter, [tensor], Tensor("", tensor.shape))
    return costs.total(emitter.ops)

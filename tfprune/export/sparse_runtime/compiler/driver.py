"""`compile_file`: from any `.tflite` file to one that XNNPACK runs in sparse mode.

Why on the file and not on the Keras model: the converter has folded batch normalization and fused
activations by then, one conversion serves all forms, nothing has to be rebuilt in Keras, and files
that others made can be compiled too.

What is written is checked by the static rules as a file of anyone's making is; a cluster that does
not pass is left outside and everything chosen again, until all do or nothing is left.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from tfprune.errors import UnsupportedModelError
from tfprune.export.sparse_runtime.check import SparseRuntimeReport, check_graph
from tfprune.export.sparse_runtime.compiler.canonical import canonicalize
from tfprune.export.sparse_runtime.compiler.costs import WASM, CostModel
from tfprune.export.sparse_runtime.compiler.lowering import Context
from tfprune.export.sparse_runtime.compiler.plan import choose, estimate
from tfprune.export.sparse_runtime.compiler.program import Op, Program
from tfprune.export.sparse_runtime.compiler.ranges import nonnegative
from tfprune.export.sparse_runtime.compiler.reading import CONVOLUTIONS, read_program
from tfprune.export.sparse_runtime.compiler.transform import transformed
from tfprune.export.sparse_runtime.compiler.turn import turned
from tfprune.export.sparse_runtime.compiler.writing import write_program
from tfprune.export.sparse_runtime.graph import parse_graph
from tfprune.export.sparse_runtime.rules import MIN_SPARSITY

_MIN_GAIN = 1.05
# Files with float16 weights may be run in float16, where larger numbers are infinite.
_LOWEST, _LOWEST_HALF = -1e30, -3e4
# By how much to overestimate what is dense, one after the other, to bring something inside.
_WEIGHTS = (1.0, 4.0, 16.0, 64.0, 1e3, 1e6)


@dataclass(frozen=True)
class Compiled:
    """A file that runs in sparse mode.

    Args:
        content: its bytes.
        report: what the static rules say of it.
        dense_ms: predicted milliseconds of the file that it was made from.
        sparse_ms: predicted milliseconds of it.
        is_turned: whether its maps are turned by 180 degrees.
        outside: how many operators were left outside, by reason.
    """

    content: bytes
    report: SparseRuntimeReport
    dense_ms: float
    sparse_ms: float
    is_turned: bool
    outside: dict[str, int]

    @property
    def gain(self) -> float:
        """How many times faster it should be."""
        return self.dense_ms / self.sparse_ms


class _Candidate:
    """A program with the choice of what runs sparse; the choice can be narrowed.

    Args:
        program: the program, canonical.
        costs: decides.
        is_turned: whether its maps are turned.
    """

    def __init__(self, program: Program, costs: CostModel, is_turned: bool):
        self.program, self.costs, self.is_turned = program, costs, is_turned
        lowest = _LOWEST_HALF if program.float16 else _LOWEST
        self.context = Context(costs, nonnegative(program), lowest)
        self.estimated = estimate(program, self.context)
        self.inside: set[Op] = set()

    def start(self, dense_weight: float = 1.0) -> None:
        """Forbid nothing, and choose with what is dense that many times as expensive."""
        self.dense_weight = dense_weight
        self.forbidden: set[Op] = set()
        self.choose()

    def choose(self) -> None:
        """Choose among what is not forbidden, and rewrite the program."""
        self.inside = choose(
            self.program, self.costs, self.estimated, self.forbidden, self.dense_weight
        )
        stems = self.estimated.stems & self.inside
        self.result = transformed(self.program, self.inside, stems, self.context)
        self.cost = self.costs.total(self.result.ops)

    @property
    def dense_cost(self) -> float:
        """The cost with nothing inside."""
        return sum(self.estimated.dense.values())

    def written(self) -> tuple[bytes, SparseRuntimeReport, str]:
        """Return the file, what the rules say of it, and what is wrong with it, or "".

        What is wrong is forbidden from then on.
        """
        content = write_program(self.result)
        graph = parse_graph(content)
        report = check_graph(graph, "the compiled file")
        origins = {op.output.name: op.origin for op in self.result.ops}
        problem, before = "", len(self.forbidden)
        for cluster in report.clusters:
            if not cluster.pointwise:
                continue
            names = [
                graph.tensors[graph.operators[index].outputs[0]].name for index in cluster.operators
            ]
            members = {origins[name] for name in names if origins.get(name) in self.inside}
            if not cluster.fits:
                problem = f"a cluster does not close: {(*cluster.leaks, *cluster.strangers)[0]}"
                self.forbidden |= members
            elif not cluster.is_sparse_enough:
                problem = (
                    f"its filters have {cluster.sparsity:.1%} zeros where sparse mode asks for "
                    f"more than {MIN_SPARSITY:.1%}"
                )
                self.forbidden |= {max(members, key=_nonzeros)} if members else set()
        problem = problem or "; ".join(report.traps)
        if not problem and not report.runs_sparse:
            problem = "nothing of it would run sparse"
        if problem and len(self.forbidden) == before:
            self.forbidden |= self.inside
        return content, report, problem


def compile_file(content: bytes, *, costs: CostModel = WASM, eager: bool = False) -> Compiled:
    """Compile a `.tflite` file for sparse mode.

    Args:
        content: the bytes of a file with float32 or float16 weights.
        costs: what decides which layers run sparse, and in which form.
        eager: run sparse what can be, whether it is predicted to gain or not.

    Raises:
        ArtifactError: the bytes are not a TFLite model.
        UnsupportedModelError: nothing in it can, or should, run in sparse mode; says why.
    """
    program = read_program(content)
    _check_sizes(program)
    canonicalize(program)
    candidates = [
        _Candidate(program, costs, is_turned=False),
        _Candidate(turned(program), costs, is_turned=True),
    ]
    dense_cost = candidates[0].dense_cost
    problems = []
    for dense_weight in _WEIGHTS if eager else _WEIGHTS[:1]:
        for candidate in candidates:
            candidate.start(dense_weight)
        limit = math.inf if eager else dense_cost / _MIN_GAIN
        compiled, problem = _compiled(candidates, dense_cost, limit)
        if compiled is not None:
            return compiled
        problems.append(problem)
    raise UnsupportedModelError(problems[-1] or _no_gain(program, candidates, dense_cost))


def _compiled(
    candidates: list[_Candidate], dense_cost: float, limit: float
) -> tuple[Compiled | None, str]:
    """Return the best candidate that passes the rules, or what keeps the upright one from it."""
    reason = ""
    while left := [c for c in candidates if c.inside and c.cost < limit]:
        best = min(left, key=lambda candidate: candidate.cost)
        content, report, problem = best.written()
        if not problem:
            return (
                Compiled(content, report, dense_cost, best.cost, best.is_turned, _outside(best)),
                "",
            )
        reason = reason if best.is_turned else problem
        best.choose()
    return None, reason


def _check_sizes(program: Program) -> None:
    for tensor in program.inputs:
        signature = getattr(tensor.stored, "shapeSignature", None)
        if signature is not None and min(signature, default=0) < 0:
            raise UnsupportedModelError(
                f"the input {tensor.name!r} has open sizes, {list(map(int, signature))}: sparse "
                "mode is compiled for fixed ones, batch size included"
            )


def _nonzeros(op: Op) -> int:
    """Return how many values other than zero the filter of an operator has."""
    weights = [x.values for x in op.inputs if x is not None and x.is_constant]
    return max((int(np.count_nonzero(values)) for values in weights), default=0)


def _outside(candidate: _Candidate) -> dict[str, int]:
    """Return why convolutions were left outside, and how many."""
    found: Counter[str] = Counter()
    for op in candidate.program.ops:
        if op in candidate.inside or op.code not in CONVOLUTIONS:
            continue
        reason = candidate.estimated.reasons.get(op, f"{op.code} would not gain by it")
        found[reason] += 1
    return dict(found)


def _no_gain(program: Program, candidates: list[_Candidate], dense_cost: float) -> str:
    if not any(op.code in CONVOLUTIONS for op in program.ops):
        return "it has no convolutions"
    tried = [candidate.cost for candidate in candidates if candidate.inside]
    if tried:
        cost = min(tried)
        return f"it would take {cost:.1f} ms instead of {dense_cost:.1f} ms, as predicted"
    return "none of its layers would gain by it, as predicted"

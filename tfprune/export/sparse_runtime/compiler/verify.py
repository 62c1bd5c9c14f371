"""Runs two files on the same inputs: how far is what they compute apart?"""

from __future__ import annotations

import numpy as np

from tfprune.export.sparse_runtime.delegation import is_delegated
from tfprune.export.sparse_runtime.graph import parse_graph

TOLERANCE = 1e-4
"""What rounding may change, over the largest value of an output, through a whole network.

A rewrite by itself changes a tenth of that at most; deep networks amplify it."""

_SEED = 1


def excess_pieces(content: bytes) -> int:
    """Return in how many more pieces XNNPACK gets a file here than the rules expect.

    Each operator that it does not run may split a file once more. If there are more pieces, it
    refuses something that the rules take for granted, and clusters may be split.
    """
    graph = parse_graph(content)
    refused = sum(
        not is_delegated(graph, op)
        for op in graph.operators
        if graph.constant(op.outputs[0]) is None
    )
    names = [op["op_name"] for op in _interpreter(content)._get_ops_details()]
    return max(names.count("DELEGATE") - 1 - refused, 0)


def difference(content: bytes, other: bytes, examples: int = 2) -> float:
    """Return the largest difference of any output over the largest value of it.

    Inputs are seeded random numbers. Where sparse mode is off (x86 with AVX), both run dense: this
    checks the rewrites, not the runtime.

    Args:
        content: the bytes of a file.
        other: those of another with the same inputs and outputs.
        examples: how many batches are compared.
    """
    rng = np.random.default_rng(_SEED)
    worst = 0.0
    interpreters = [_interpreter(each) for each in (content, other)]
    for _ in range(examples):
        inputs = [
            _random(rng, detail["shape"], detail["dtype"])
            for detail in interpreters[0].get_input_details()
        ]
        for a, b in zip(*(_outputs(each, inputs) for each in interpreters), strict=True):
            largest = max(float(np.abs(a).max(initial=0)), np.finfo(np.float32).tiny)
            gap = float(np.abs(a - b).max(initial=0)) / largest
            worst = max(worst, gap if np.isfinite(gap) else np.inf)
    return worst


def _interpreter(content: bytes):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    return interpreter


def _random(rng: np.random.Generator, shape: np.ndarray, dtype: type) -> np.ndarray:
    if np.issubdtype(dtype, np.floating):
        return rng.random(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def _outputs(interpreter, inputs: list[np.ndarray]) -> list[np.ndarray]:
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return [
        interpreter.get_tensor(detail["index"]).astype(np.float64)
        for detail in interpreter.get_output_details()
    ]

"""Which operators XNNPACK takes over at all, and which clusters it gets in pieces.

LiteRT hands XNNPACK the operators that it knows, in as few pieces as their order allows: what
depends on an operator that XNNPACK does not know comes in a later piece. A cluster in two pieces
ends where the first one does, which is no end that sparse mode knows.
"""

from __future__ import annotations

from tfprune.export.sparse_runtime.graph import Graph, Operator

DELEGATED = {
    "ABS", "ADD", "AVERAGE_POOL_2D", "CEIL", "CONCATENATION", "CONV_2D", "DENSIFY",
    "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "ELU", "EXP", "FLOOR",
    "FULLY_CONNECTED", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "MAXIMUM",
    "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "NEG", "PAD", "PRELU", "RELU", "RELU6",
    "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "ROUND", "RSQRT", "SLICE", "SOFTMAX",
    "SPACE_TO_DEPTH", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "TANH", "TRANSPOSE",
    "TRANSPOSE_CONV",
}  # fmt: skip


MAX_CONCATENATED = 4
"""It concatenates so many tensors; recent versions one more."""

_POOLINGS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")
_CLAMPS = (0, 1, 2, 3)
_QUANTIZED = ("INT8", "UINT8")


def is_delegated(graph: Graph, op: Operator) -> bool:
    """Whether XNNPACK takes an operator over. Where versions differ, it does not."""
    if op.name not in DELEGATED:
        return False
    if graph.tensors[op.outputs[0]].dtype not in ("FLOAT32", "FLOAT16", *_QUANTIZED):
        return False
    options = op.options
    if options.get("fusedActivationFunction", 0) not in _CLAMPS:
        return False
    if op.name in _POOLINGS:  # It skips no value.
        return (
            options["strideH"] <= options["filterHeight"]
            and options["strideW"] <= options["filterWidth"]
        )
    if op.name == "CONCATENATION" and len(op.inputs) > MAX_CONCATENATED:
        return False
    # What is not a map has to be known before.
    constants = {"FULLY_CONNECTED": [1], "CONV_2D": [1], "DEPTHWISE_CONV_2D": [1], "PAD": [1],
                 "MEAN": [1], "SLICE": [1, 2], "TRANSPOSE": [1], "RESIZE_BILINEAR": [1],
                 "TRANSPOSE_CONV": [0, 1], "PRELU": [1]}  # fmt: skip
    return all(graph.constant(op.inputs[index]) is not None for index in constants.get(op.name, ()))


def splits(graph: Graph, indices: list[int], behind: list[frozenset[int]]) -> list[tuple[str, int]]:
    """Return what splits a cluster: words, and the operator.

    Args:
        graph: the graph.
        indices: the operators of the cluster.
        behind: what `undelegated_before` says of the graph.
    """
    some = every = behind[indices[0]]
    for index in indices:
        some, every = some | behind[index], every & behind[index]
    return [
        (f"#{index} {graph.operators[index].name}, which XNNPACK does not run, splits it", index)
        for index in sorted(some - every)
    ]


def undelegated_before(graph: Graph) -> list[frozenset[int]]:
    """Return for each operator those it depends on that XNNPACK does not take."""
    found: list[frozenset[int]] = []
    for op in graph.operators:
        before = [
            found[graph.producers[tensor].index]
            for tensor in op.inputs
            if tensor in graph.producers
        ]
        own = not is_delegated(graph, op)
        found.append(frozenset().union(*before, [op.index] if own else []))
    return found

"""Which operators XNNPACK's sparse mode takes, and why it refuses the others.

The mode keeps activations in channels-first layout (NCHW), in which a 1x1 convolution is a product
of a sparse matrix and contiguous rows. A cluster of operators enters it at one kind of
convolution and leaves it at a mean over space or at DEPTH_TO_SPACE.

Source: XNNPACK, `src/subgraph.c` (`check_layout_compatibility`, `xnn_subgraph_rewrite_for_nchw`);
Elsen et al. (2020), "Fast Sparse ConvNets".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from tfprune.export.sparse_runtime.graph import Graph, Operator

MIN_SPARSITY = 2 / 3
"""More zeros than this, over all 1x1 filters of a cluster together, switch the mode on."""

_UNARY = {
    "ABS", "CEIL", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG",
    "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SQRT", "SQUARE", "TANH",
}  # fmt: skip
_BINARY = {"ADD", "MUL"}
_SAME, _VALID = 0, 1


class Role(Enum):
    """What an operator is to a cluster."""

    ENTRY = "starts a cluster"
    INSIDE = "runs inside of a cluster"
    EXIT = "ends a cluster"
    OUTSIDE = "never part of a cluster"


@dataclass(frozen=True)
class Verdict:
    """The role of an operator, and for one outside the reason and what would change it."""

    role: Role
    reason: str = ""
    remedy: str = ""


def judge(graph: Graph, op: Operator) -> Verdict:
    """Return the role of an operator.

    Padding that the runtime fuses into the convolution behind it has the role of that convolution.
    """
    if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return _judge_convolution(graph, op)
    if op.name in _UNARY:
        return _four_axes(graph, op, Verdict(Role.INSIDE))
    if op.name in _BINARY:
        return _judge_binary(graph, op)
    if op.name == "MEAN":
        return _judge_mean(graph, op)
    if op.name == "DEPTH_TO_SPACE":
        return Verdict(Role.EXIT)
    if op.name == "RESIZE_BILINEAR":
        return Verdict(Role.INSIDE)
    if op.name == "PAD" and (convolution := padded_convolution(graph, op)) is not None:
        return judge(graph, convolution)
    if op.name == "PAD":
        return Verdict(
            Role.OUTSIDE,
            "a PAD with several consumers is not fused into any of them",
            "give each consumer a PAD of its own",
        )
    return Verdict(
        Role.OUTSIDE,
        f"{op.name} has no channels-first form",
        "keep it before the 3x3 stride-2 stem or behind the global pooling",
    )


def padded_convolution(graph: Graph, op: Operator) -> Operator | None:
    """Return the convolution that a PAD is fused into: the only consumer, without own padding."""
    consumers = graph.consumers.get(op.outputs[0], [])
    if len(consumers) != 1 or op.outputs[0] in graph.outputs:
        return None
    (consumer,) = consumers
    is_convolution = consumer.name in ("CONV_2D", "DEPTHWISE_CONV_2D")
    return consumer if is_convolution and consumer.options["padding"] == _VALID else None


def padding(graph: Graph, op: Operator) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the zeros before and after, over height and over width, of a convolution."""
    producer = graph.producers.get(op.inputs[0])
    if op.options["padding"] == _VALID:
        if producer is None or producer.name != "PAD" or padded_convolution(graph, producer) != op:
            return ((0, 0), (0, 0))
        pads = graph.constant(producer.inputs[1])
        before_after = np.asarray(pads.stored).reshape(-1, 2)[1:3]
        return tuple(tuple(map(int, pair)) for pair in before_after)  # type: ignore[return-value]
    return tuple(  # type: ignore[return-value]
        _same_padding(size, kernel, stride)
        for size, kernel, stride in zip(
            graph.tensors[op.inputs[0]].shape[1:3],
            graph.tensors[op.inputs[1]].shape[1:3],
            (op.options["strideH"], op.options["strideW"]),
            strict=True,
        )
    )


def is_pointwise(graph: Graph, op: Operator) -> bool:
    """Whether an operator is a 1x1 convolution of stride 1: what runs sparse."""
    strides = (op.options.get("strideH"), op.options.get("strideW"))
    kernel = graph.tensors[op.inputs[1]].shape[1:3] if op.name == "CONV_2D" else None
    return kernel == (1, 1) and strides == (1, 1)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _judge_convolution(graph: Graph, op: Operator) -> Verdict:
    kernel = graph.tensors[op.inputs[1]].shape
    if graph.constant(op.inputs[1]) is None:
        return Verdict(Role.OUTSIDE, "its filter is computed, not a constant")
    strides = (op.options["strideH"], op.options["strideW"])
    pads = padding(graph, op)
    described = f"{kernel[1]}x{kernel[2]}, stride {strides[0]}, padding {_described(pads)}"
    if op.options.get("dilationHFactor", 1) != 1 or op.options.get("dilationWFactor", 1) != 1:
        return Verdict(Role.OUTSIDE, f"{op.name} is dilated", "replace dilation by stride")
    if op.name == "DEPTHWISE_CONV_2D":
        return _judge_depthwise(op, kernel, strides, pads, described)
    if is_pointwise(graph, op):
        if graph.tensors[op.inputs[0]].shape[3] != kernel[3]:
            return Verdict(Role.OUTSIDE, "a grouped 1x1 convolution")
        return Verdict(Role.INSIDE)
    is_stem = kernel[1:] == (3, 3, 3) and strides == (2, 2)
    if is_stem and pads == ((1, 1), (1, 1)):
        return Verdict(Role.ENTRY)
    if is_stem:
        return Verdict(
            Role.OUTSIDE,
            f"the stem is padded {_described(pads)}; the sparse mode wants 1 on every side",
            "turn the model by 180 degrees, or pad by 1 ahead of a `valid` convolution",
        )
    return Verdict(
        Role.OUTSIDE,
        f"CONV_2D {described}, {kernel[3]} input channels: only 1x1 filters run sparse, and only a "
        "3x3 stride-2 convolution of 3 channels starts a cluster",
        "rewrite it as depthwise and 1x1 convolutions",
    )


def _judge_depthwise(
    op: Operator, kernel: tuple[int, ...], strides: tuple[int, int], pads: tuple, described: str
) -> Verdict:
    if op.options.get("depthMultiplier", 1) != 1:
        return Verdict(Role.OUTSIDE, "DEPTHWISE_CONV_2D with a depth multiplier")
    half = {(3, 3): 1, (5, 5): 2}.get(kernel[1:3])
    if half is None or strides not in ((1, 1), (2, 2)):
        return Verdict(
            Role.OUTSIDE, f"DEPTHWISE_CONV_2D {described}: 3x3 and 5x5 of stride 1 or 2 are there"
        )
    if pads != ((half, half), (half, half)):
        return Verdict(
            Role.OUTSIDE,
            f"DEPTHWISE_CONV_2D {described}; the sparse mode wants {half} on every side",
            "turn the model by 180 degrees, or pad evenly ahead of a `valid` convolution",
        )
    return Verdict(Role.INSIDE)


def _judge_binary(graph: Graph, op: Operator) -> Verdict:
    first, second = op.inputs
    for tensor in op.inputs:
        if graph.constant(tensor) is not None and len(graph.tensors[tensor].shape) != 4:
            return Verdict(
                Role.OUTSIDE,
                f"{op.name} with a constant of {len(graph.tensors[tensor].shape)} axes",
                "give the constant the shape [1, 1, 1, 1]",
            )
    if graph.constant(second) is not None and graph.constant(first) is None:
        shape = graph.tensors[first].shape
        if shape[1:3] != (1, 1):
            return Verdict(
                Role.OUTSIDE, f"{op.name} with a constant as second operand", "swap the operands"
            )
    return _four_axes(graph, op, Verdict(Role.INSIDE))


def _judge_mean(graph: Graph, op: Operator) -> Verdict:
    axes = graph.constant(op.inputs[1])
    if axes is None or sorted(int(axis) % 4 for axis in axes.stored) != [1, 2]:
        return Verdict(Role.OUTSIDE, "MEAN over other axes than height and width")
    return _four_axes(graph, op, Verdict(Role.EXIT), op.inputs[:1])


def _four_axes(
    graph: Graph, op: Operator, verdict: Verdict, tensors: tuple[int, ...] | None = None
) -> Verdict:
    for tensor in op.inputs if tensors is None else tensors:
        if len(graph.tensors[tensor].shape) != 4:
            return Verdict(Role.OUTSIDE, f"{op.name} of a tensor that does not have 4 axes")
    return verdict


def _described(pads: tuple[tuple[int, int], tuple[int, int]]) -> str:
    (top, bottom), (left, right) = pads
    return str(top) if top == bottom == left == right else f"{top}/{bottom} and {left}/{right}"

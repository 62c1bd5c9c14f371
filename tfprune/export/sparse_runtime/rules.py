"""Which operators XNNPACK's sparse mode takes, and why it refuses the others.

The mode keeps activations in channels-first layout (NCHW), in which a 1x1 convolution is a product
of a sparse matrix and contiguous rows. A cluster of operators enters it at one kind of
convolution and leaves it at a mean over space or at DEPTH_TO_SPACE.

Source: XNNPACK, `src/subgraph.c` (`check_layout_compatibility`, `xnn_subgraph_rewrite_for_nchw`);
Elsen et al. (2020), "Fast Sparse ConvNets".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from tfprune.export.sparse_runtime.graph import Graph, Operator

MIN_SPARSITY = 2 / 3
"""More zeros than this, over all 1x1 filters of a cluster together, switch the mode on."""

UNARY = {
    "ABS", "CEIL", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG",
    "LOGISTIC", "NEG", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SQRT", "SQUARE", "TANH",
}  # fmt: skip
_FLOATS = ("FLOAT16", "FLOAT32")
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
    dtype = graph.tensors[op.outputs[0]].dtype
    if dtype not in _FLOATS:
        return Verdict(
            Role.OUTSIDE,
            f"{op.name} in {dtype}: the sparse mode is for floating-point activations",
            "export it with float32 or float16 weights",
        )
    known = _JUDGES.get(op.name)
    if known is not None:
        return known(graph, op)
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
    """Return the zeros before and after, over height and over width, of a convolution.

    Of "same" padding with a stride these may be even, but XNNPACK does not look: see `_is_even`.
    """
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


def _is_even(op: Operator, pads: tuple[tuple[int, int], tuple[int, int]], half: int) -> bool:
    """Whether XNNPACK sees so many zeros on every side.

    It writes out "same" padding only where no stride makes it depend on the size.
    """
    unseen = op.options["padding"] == _SAME and (op.options["strideH"], op.options["strideW"]) != (
        1,
        1,
    )
    return pads == ((half, half), (half, half)) and not unseen


def is_pointwise(graph: Graph, op: Operator) -> bool:
    """Whether an operator is a 1x1 convolution of stride 1: what runs sparse."""
    strides = (op.options.get("strideH"), op.options.get("strideW"))
    kernel = graph.tensors[op.inputs[1]].shape[1:3] if op.name == "CONV_2D" else None
    return kernel == (1, 1) and strides == (1, 1)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _judge_convolution(graph: Graph, op: Operator) -> Verdict:
    if graph.constant(op.inputs[1]) is None:
        return Verdict(Role.OUTSIDE, f"{op.name} with a filter that is computed, not a constant")
    if op.options.get("dilationHFactor", 1) != 1 or op.options.get("dilationWFactor", 1) != 1:
        return Verdict(Role.OUTSIDE, f"{op.name} is dilated", "replace dilation by stride")
    kernel = graph.tensors[op.inputs[1]].shape
    if is_pointwise(graph, op):
        grouped = graph.tensors[op.inputs[0]].shape[3] != kernel[3]
        return Verdict(Role.OUTSIDE, "a grouped 1x1 convolution") if grouped else _INSIDE
    strides = (op.options["strideH"], op.options["strideW"])
    pads = padding(graph, op)
    if kernel[1:] != (3, 3, 3) or strides != (2, 2):
        return Verdict(
            Role.OUTSIDE,
            f"CONV_2D {kernel[1]}x{kernel[2]}, stride {strides[0]}, {kernel[3]} input channels: "
            "only 1x1 filters run sparse, and a cluster starts at a 3x3 stride-2 stem for 3",
            "rewrite it as depthwise and 1x1 convolutions",
        )
    if not _is_even(op, pads, 1):
        return Verdict(
            Role.OUTSIDE,
            f"the stem is padded {_described(pads)}; the sparse mode wants 1 on every side",
            "turn the model by 180 degrees, or pad by 1 ahead of a `valid` convolution",
        )
    return Verdict(Role.ENTRY)


def _judge_depthwise(graph: Graph, op: Operator) -> Verdict:
    kernel = graph.tensors[op.inputs[1]].shape
    strides = (op.options["strideH"], op.options["strideW"])
    pads = padding(graph, op)
    described = (
        f"DEPTHWISE_CONV_2D {kernel[1]}x{kernel[2]}, stride {strides[0]}, "
        f"padding {_described(pads)}"
    )
    half = {(3, 3): 1, (5, 5): 2}.get(kernel[1:3])
    plain = op.options["depthMultiplier"] in (0, 1) and op.options["dilationHFactor"] == 1
    if half is None or strides not in ((1, 1), (2, 2)) or not plain:
        return Verdict(
            Role.OUTSIDE,
            f"{described}: the sparse mode has 3x3 and 5x5, of stride 1 or 2, not dilated, with "
            "one output per channel",
        )
    if not _is_even(op, pads, half):
        return Verdict(
            Role.OUTSIDE,
            f"{described}; the sparse mode wants {half} on every side",
            "turn the model by 180 degrees, or pad evenly ahead of a `valid` convolution",
        )
    return _INSIDE


def _judge_pad(graph: Graph, op: Operator) -> Verdict:
    convolution = padded_convolution(graph, op)
    if convolution is not None:
        return judge(graph, convolution)
    return Verdict(
        Role.OUTSIDE,
        "a PAD that is not fused into the one convolution behind it",
        "give each `valid` convolution a PAD of its own",
    )


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
    return _four_axes(graph, op, _INSIDE)


def _judge_unary(graph: Graph, op: Operator) -> Verdict:
    return _four_axes(graph, op, _INSIDE)


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


_INSIDE = Verdict(Role.INSIDE)
_JUDGES: dict[str, Callable[[Graph, Operator], Verdict]] = {
    **dict.fromkeys(UNARY, _judge_unary),
    "ADD": _judge_binary,
    "CONV_2D": _judge_convolution,
    "DEPTHWISE_CONV_2D": _judge_depthwise,
    "DEPTH_TO_SPACE": lambda graph, op: Verdict(Role.EXIT),
    "MEAN": _judge_mean,
    "MUL": _judge_binary,
    "PAD": _judge_pad,
    "RESIZE_BILINEAR": lambda graph, op: _INSIDE,
}

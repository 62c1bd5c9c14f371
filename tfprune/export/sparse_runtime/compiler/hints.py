"""`layer_cost`: what a convolution would cost in sparse mode, before there is a file.

For pruning: which layers are worth zeros, and how many. Only the layer itself is looked at; borders
of sparse mode and the rule of two thirds are matters of the whole network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tfprune.errors import InvalidArgumentError
from tfprune.export.sparse_runtime.compiler.costs import WASM, CostModel
from tfprune.export.sparse_runtime.compiler.emitter import Emitter
from tfprune.export.sparse_runtime.compiler.lowering import Context, NotLoweredError, lower
from tfprune.export.sparse_runtime.compiler.program import (
    NO_PADS,
    Op,
    Pads,
    Tensor,
    same_padding,
    windows,
)


@dataclass(frozen=True)
class LayerCost:
    """Predicted milliseconds of a layer.

    Args:
        dense_ms: outside of sparse mode.
        sparse_ms: inside; infinite if it has no form there.
        reason: why it has none, or "".
    """

    dense_ms: float
    sparse_ms: float
    reason: str = ""


def layer_cost(
    kernel: np.ndarray,
    size: tuple[int, int],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: str = "same",
    costs: CostModel = WASM,
) -> LayerCost:
    """Predict what an ordinary convolution costs, with the zeros that its kernel has.

    Args:
        kernel: array (rows, columns, inputs, outputs), Keras order.
        size: height and width of the map that it reads.
        strides: over height and over width.
        padding: "same" or "valid".
        costs: the runtime.

    Raises:
        InvalidArgumentError: `padding` is neither, or the kernel has not four axes.

    Example:
        >>> kernel = np.zeros((3, 3, 64, 64), np.float32)
        >>> kernel[1, 1] = np.eye(64)
        >>> cost = layer_cost(kernel, (28, 28))
        >>> bool(cost.sparse_ms < cost.dense_ms / 10)
        True
    """
    from ai_edge_litert import schema_py_generated as schema

    if padding not in ("same", "valid") or kernel.ndim != 4:
        raise InvalidArgumentError(
            "`padding` must be 'same' or 'valid', and `kernel` an array (rows, columns, inputs, "
            f"outputs). Received: {padding!r} and a kernel of shape {kernel.shape}."
        )
    rows, columns, inputs, outputs = kernel.shape
    axes = list(zip(size, (rows, columns), strides, strict=True))
    pads: Pads = NO_PADS
    if padding == "same":
        pads = tuple(same_padding(*axis) for axis in axes)  # type: ignore[assignment]
    spatial = [windows(*axis, around) for axis, around in zip(axes, pads, strict=True)]
    x, y = Tensor("x", (1, *size, inputs)), Tensor("y", (1, *spatial, outputs))
    filters = Tensor.constant("filters", np.moveaxis(kernel, 3, 0).astype(np.float32))
    options = schema.Conv2DOptionsT(1, strides[1], strides[0], 0, 1, 1)
    op = Op("CONV_2D", [x, filters], [y], options, pads=pads)
    emitter = Emitter()
    try:
        lower(emitter, op, [[x]], Context(costs, set()))
    except NotLoweredError as error:
        return LayerCost(costs.dense(op), math.inf, str(error))
    return LayerCost(costs.dense(op), costs.total(emitter.ops))

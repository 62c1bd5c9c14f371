"""Pooling as depthwise convolutions and functions of one operand, for sparse mode has none.

The larger of two values is relu(a - b) + b. Where both are values of one map, a depthwise
convolution with +1 and -1 in its kernel is their difference. A mean is a depthwise convolution.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from tfprune.export.sparse_runtime.compiler.emitter import RELU, Emitter
from tfprune.export.sparse_runtime.compiler.program import Tensor

Offset = tuple[int, int]
_REACH = 2


def maximum(
    emitter: Emitter,
    x: Tensor,
    rows: list[int],
    columns: list[int],
    stride: int,
    *,
    outside: float,
) -> Tensor:
    """Return the largest value of each window.

    Args:
        emitter: takes the operators.
        x: the map.
        rows: offsets of the window relative to its output, over height.
        columns: likewise, over width.
        stride: 1 or 2.
        outside: what stands outside of the map, where windows reach over the border. It must not
            win: 0, or less than anything that a map with negative values holds.
    """
    offsets = list(product(rows, columns))
    if outside:
        # The place of the output itself is always inside. It comes first, so that no sum is made
        # with a low value, which would round away the other one.
        offsets.sort(key=lambda offset: offset != (0, 0))
        values = [_lowered_outside(emitter, x, offset, stride, outside) for offset in offsets]
    else:
        pairs = list(zip(offsets[::2], offsets[1::2], strict=False))
        values = [_larger_of_taps(emitter, x, a, b, stride) for a, b in pairs]
        if len(offsets) % 2:
            values.append(emitter.tap(x, *offsets[-1], stride))
    largest, *others = values
    for other in others:
        excess = emitter.add(other, emitter.scale(largest, -1), RELU)
        largest = emitter.add(excess, largest)
    return largest


def average(
    emitter: Emitter,
    x: Tensor,
    rows: list[int],
    columns: list[int],
    stride: int,
    *,
    padded: bool,
) -> Tensor:
    """Return the mean of each window, over the values that are in the map.

    Args:
        emitter: takes the operators.
        x: the map.
        rows: offsets of the window relative to its output, over height.
        columns: likewise, over width.
        stride: 1 or 2.
        padded: whether windows reach over the border, by one row or column at most.
    """
    window = _window(rows, columns, 1 / (len(rows) * len(columns)))
    means = emitter.depthwise(x, np.repeat(window, x.shape[3], axis=2), stride)
    if not padded:
        return means
    factors = [
        _missing(emitter, x, rows, [0], stride),
        _missing(emitter, x, [0], columns, stride),
    ]
    factor = emitter.multiply(*factors)
    everywhere = emitter.pointwise(factor, np.ones((x.shape[3], 1)))
    return emitter.multiply(everywhere, means)


def _missing(
    emitter: Emitter, x: Tensor, rows: list[int], columns: list[int], stride: int
) -> Tensor:
    """Return by what means along an axis grow where one value of the window is missing.

    If one of n values is missing, the mean is n / (n - 1) times the sum over n: 1 and the number
    of missing ones over n - 1, which is linear in the number of those that are there.
    """
    count = len(rows) * len(columns)
    rest = max(count - 1, 1)
    window = _window(rows, columns, -1 / rest)
    bias = np.array([1 + count / rest], np.float32)
    return emitter.depthwise(_ones(emitter, x), window, stride, bias)


def _lowered_outside(
    emitter: Emitter, x: Tensor, offset: Offset, stride: int, outside: float
) -> Tensor:
    """Return a shifted map that has another value than zero outside of the map."""
    tap = emitter.tap(x, *offset, stride)
    if offset == (0, 0):
        return tap
    inside = emitter.tap(_ones(emitter, x), *offset, stride)
    channels = x.shape[3]
    penalty = emitter.pointwise(
        inside, np.full((channels, 1), -outside), np.full(channels, outside, np.float32)
    )
    return emitter.add(penalty, tap)


def _ones(emitter: Emitter, x: Tensor) -> Tensor:
    """Return a map of one channel that is 1 everywhere: a product with zeros, and a bias."""
    key = (x, "ones")
    if key not in emitter.taps:
        emitter.taps[key] = emitter.pointwise(x, np.zeros((1, x.shape[3])), np.ones(1, np.float32))
    return emitter.taps[key]


def _window(rows: list[int], columns: list[int], value: float) -> np.ndarray:
    """Return a kernel (size, size, 1) with a value at some offsets."""
    half = max(1, *map(abs, (*rows, *columns)))
    kernel = np.zeros((2 * half + 1, 2 * half + 1, 1), np.float32)
    kernel[half + np.array(rows)[:, np.newaxis], half + np.array(columns)] = value
    return kernel


def _larger_of_taps(emitter: Emitter, x: Tensor, a: Offset, b: Offset, stride: int) -> Tensor:
    second = emitter.tap(x, *b, stride)
    half = max(1, *map(abs, (*a, *b)))
    if half > _REACH:
        difference = emitter.add(
            emitter.tap(x, *a, stride), emitter.tap(x, *b, stride, sign=-1), RELU
        )
    else:
        kernel = np.zeros((2 * half + 1, 2 * half + 1, x.shape[3]), np.float32)
        kernel[half + a[0], half + a[1]] = 1
        kernel[half + b[0], half + b[1]] = -1
        difference = emitter.depthwise(x, kernel, stride, activation=RELU)
    return emitter.add(difference, second)

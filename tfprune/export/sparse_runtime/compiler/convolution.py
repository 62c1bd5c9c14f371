"""Convolutions of any window as sparse 1x1 convolutions and shifts.

A k x k convolution is a sum over its taps: each shifts the map and multiplies it by one matrix,
which is a sparse 1x1 convolution. What differs is where the shifts are made, and how the sum is:

- `_summed`: shifts before the products, after them, or columns before and rows after; the products
  are added. Taps of zeros only are left out.
- `_stacked`: one product for all taps. A 0/1 convolution copies the map once per shift, a depthwise
  one shifts each copy, the product reads all copies; likewise after it, and another 0/1 convolution
  adds them up. Fewer passes over memory, but no tap is left out.

A shift after the product sees the zeros around the map as the one before does, if it is along
another axis than those before: a row outside of the map is zero whatever the columns are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from tfprune.export.sparse_runtime.compiler.emitter import NONE, Emitter
from tfprune.export.sparse_runtime.compiler.program import Pads, Tensor

Offset = tuple[int, int]


@dataclass(frozen=True)
class Convolution:
    """What a convolution computes.

    Args:
        filters: array (outputs, rows, columns, inputs).
        bias: array (outputs,).
        activation: the fused activation.
        stride: 1 or 2, over both axes.
        pads: zeros around the map.
    """

    filters: np.ndarray
    bias: np.ndarray
    activation: int
    stride: int
    pads: Pads

    @property
    def offsets(self) -> tuple[list[int], list[int]]:
        """Where its taps are, relative to the output, over rows and over columns."""
        (top, _), (left, _) = self.pads
        _, rows, columns, _ = self.filters.shape
        return [row - top for row in range(rows)], [column - left for column in range(columns)]

    def tap(self, offset: Offset) -> np.ndarray:
        """Return the matrix (outputs, inputs) of a tap."""
        (top, _), (left, _) = self.pads
        return self.filters[:, offset[0] + top, offset[1] + left]


Form = Callable[[Emitter, list[Tensor]], Tensor]


def forms(convolution: Convolution) -> Iterator[Form]:
    """Yield the ways to compute a convolution of maps that are concatenated along channels.

    The caller takes the one that costs least.
    """
    rows, columns = convolution.offsets
    every = [(row, column) for row in rows for column in columns]
    here = [(0, 0)]
    if every == here and convolution.stride == 1:
        yield partial(_summed, convolution, here, here)
        return
    splits = [(every, here)]
    if convolution.stride == 1:
        in_rows, in_columns = [(row, 0) for row in rows], [(0, column) for column in columns]
        splits += [(here, every), (in_columns, in_rows), (in_rows, in_columns)]
    for before, after in splits:
        yield partial(_summed, convolution, before, after)
        near = max(abs(n) for offset in (*before, *after) for n in offset) <= 2
        if near and len(every) > 1:
            yield partial(_stacked, convolution, before, after)


def _summed(
    convolution: Convolution,
    before: list[Offset],
    after: list[Offset],
    emitter: Emitter,
    parts: list[Tensor],
) -> Tensor:
    """Shift, multiply, add, shift, add."""
    terms = [
        (later, part, earlier, matrix)
        for later in after
        for earlier in before
        for part, matrix in zip(
            parts, _split(convolution.tap(_sum(earlier, later)), parts), strict=True
        )
        if np.any(matrix)
    ]
    # The bias goes with a product that is not shifted afterwards, where zeros would replace it.
    anchored = [term for term in terms if term[0] == (0, 0)]
    if not anchored:
        matrix = np.zeros((len(convolution.bias), parts[0].shape[3]), np.float32)
        anchored = [((0, 0), parts[0], (0, 0), matrix)]
        terms = [*anchored, *terms]
    products: dict[Offset, list[Tensor]] = {}
    for term in terms:
        later, part, earlier, matrix = term
        product = emitter.pointwise(
            emitter.tap(part, *earlier, convolution.stride),
            matrix,
            convolution.bias if term is anchored[0] else None,
            convolution.activation if len(terms) == 1 else NONE,
        )
        products.setdefault(later, []).append(product)
    activation = convolution.activation if len(products) == 1 else NONE
    rows = [
        emitter.tap(emitter.total(summands, activation), *later)
        for later, summands in products.items()
    ]
    return emitter.total(rows, convolution.activation)


def _stacked(
    convolution: Convolution,
    before: list[Offset],
    after: list[Offset],
    emitter: Emitter,
    parts: list[Tensor],
) -> Tensor:
    """Copy, shift all copies at once, multiply once, shift, add up."""
    outputs = len(convolution.bias)
    alone = len(after) == 1
    matrices = np.block(
        [[convolution.tap(_sum(earlier, later)) for earlier in before] for later in after]
    ).reshape(len(after) * outputs, len(before), -1)
    bounds = np.cumsum([0, *(part.shape[3] for part in parts)])
    result = None
    for index, part in enumerate(parts):
        channels = part.shape[3]
        own = matrices[:, :, bounds[index] : bounds[index + 1]]
        x = part
        if len(before) > 1:
            copies = np.tile(np.eye(channels, dtype=np.float32), (len(before), 1))
            x = _shifted(emitter, emitter.pointwise(part, copies), before, convolution.stride)
        only = len(parts) == 1
        product = emitter.pointwise(
            x,
            own.reshape(len(after) * outputs, -1),
            convolution.bias if alone and index == 0 else None,
            convolution.activation if alone and only else NONE,
        )
        last = alone and index == len(parts) - 1
        activation = convolution.activation if last else NONE
        result = product if result is None else emitter.add(result, product, activation)
    if alone:
        return result
    sums = np.tile(np.eye(outputs, dtype=np.float32), (1, len(after)))
    shifted = _shifted(emitter, result, after)
    return emitter.pointwise(shifted, sums, convolution.bias, convolution.activation)


def _shifted(emitter: Emitter, x: Tensor, offsets: list[Offset], stride: int = 1) -> Tensor:
    """Shift as many equal groups of channels as there are offsets, each by its own."""
    half = max(1, *(abs(n) for offset in offsets for n in offset))
    size = 2 * half + 1
    kernel = np.zeros((size, size, len(offsets), x.shape[3] // len(offsets)), np.float32)
    for group, (row, column) in enumerate(offsets):
        kernel[half + row, half + column, group] = 1
    return emitter.depthwise(x, kernel.reshape(size, size, -1), stride)


def _split(matrix: np.ndarray, parts: list[Tensor]) -> list[np.ndarray]:
    """Split a matrix (outputs, inputs) by the maps that its inputs come from."""
    return np.split(matrix, np.cumsum([part.shape[3] for part in parts])[:-1], axis=1)


def _sum(a: Offset, b: Offset) -> Offset:
    return a[0] + b[0], a[1] + b[1]

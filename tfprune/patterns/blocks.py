"""Rectangular blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.kernel_layout import KernelLayout
from tfprune.patterns.base import Pattern


@dataclass(frozen=True)
class Block(Pattern):
    """Rectangular blocks of the weight seen as a matrix `(taps * inputs, outputs)`.

    For a convolution that is the im2col matrix. Blocks at the lower and right edge are smaller
    where the size does not divide.

    Args:
        shape: `(rows, columns)` of a block.

    Example:
        >>> layout = KernelLayout.default((2, 4))
        >>> scores = np.array([[1.0, 1, 4, 4], [2, 2, 3, 3]])
        >>> Block((1, 2)).unit_scores(scores, layout).tolist()
        [1.0, 4.0, 2.0, 3.0]
    """

    shape: tuple[int, int]

    def __post_init__(self) -> None:
        try:
            rows, columns = (int(n) for n in self.shape)
        except (TypeError, ValueError):
            raise InvalidTypeError(
                f"A block's `shape` is (rows, columns), such as (1, 4). Received: {self.shape!r}"
            ) from None
        if rows < 1 or columns < 1:
            raise InvalidArgumentError(f"A block is at least (1, 1). Received: {self.shape!r}")
        object.__setattr__(self, "shape", (rows, columns))

    def unit_scores(self, scores: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the mean score of each block, blocks in row-major order."""
        return self._sums(scores, layout) / self.unit_sizes(layout)

    def unit_sizes(self, layout: KernelLayout) -> int | np.ndarray:
        """Return the blocks' sizes: one int if the block divides the matrix."""
        matrix = _matrix_shape(layout)
        heights, widths = (
            np.minimum(step, size - np.arange(0, size, step))
            for step, size in zip(self.shape, matrix, strict=True)
        )
        sizes = np.outer(heights, widths).reshape(-1)
        return int(sizes[0]) if (sizes == sizes[0]).all() else sizes

    def expand(self, unit_mask: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the blocks' mask, block by block, in the weight's shape."""
        rows, columns = _matrix_shape(layout)
        high, wide = self.shape
        blocks = unit_mask.reshape(-(-rows // high), -(-columns // wide))
        matrix = blocks.repeat(high, axis=0)[:rows].repeat(wide, axis=1)[:, :columns]
        return layout.from_taps(matrix)

    def _sums(self, scores: np.ndarray, layout: KernelLayout) -> np.ndarray:
        rows, columns = _matrix_shape(layout)
        high, wide = self.shape
        matrix = layout.to_taps(scores).reshape(rows, columns)
        padded = np.pad(matrix, ((0, -rows % high), (0, -columns % wide)))
        blocks = padded.reshape(padded.shape[0] // high, high, padded.shape[1] // wide, wide)
        return blocks.sum(axis=(1, 3)).reshape(-1)


def _matrix_shape(layout: KernelLayout) -> tuple[int, int]:
    taps, inputs, outputs = layout.taps_shape
    return taps * inputs, outputs

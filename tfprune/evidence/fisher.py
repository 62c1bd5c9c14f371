"""Evidence from the empirical Fisher information in blocks, as in WoodFisher.

A weight is seen as the matrix `(taps * inputs, outputs)`; a block is `BLOCK_SIZE` consecutive rows
of one column, so up to 16 weights of one output. For each block,

    F = 1/N sum_k g_k g_k^T + d I,   d = DAMPING * mean diagonal of the block,

over the gradients g_k of N single examples. The damping is relative, so that it does not depend on
the scale of the loss. WoodFisher updates the inverse of F with each example (Sherman-Morrison);
here F is summed up and inverted once: the same result, half the work, and no error that builds up.

Half of each symmetric block is held: (BLOCK_SIZE + 1) / 2 = 8.5 float32 numbers per weight.

Source: Singh & Alistarh (2020), "WoodFisher: Efficient Second-Order Approximation for Neural
Network Compression".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfprune.evidence.gradients import compile_gradient, examples
from tfprune.evidence.probe import Probe
from tfprune.kernel_layout import KernelLayout

BLOCK_SIZE = 16
DAMPING = 0.01
_CHUNK = 4096
# Weights whose F is held at one time anyway; 17 MB.
_MIN_PORTION = 1 << 19


def collect_block_fisher(probe: Probe) -> dict[str, list[np.ndarray]]:
    """Gather "block_fisher_inverse_diagonal": the diagonal of F^-1, of each weight's shape.

    Of a large model, F is gathered for one portion of the weights after the other, each in a pass
    over the data of its own, so that F takes no more memory than the weights.
    """
    gradient = compile_gradient(probe)
    diagonals: list[np.ndarray] = []
    for portion in _portions(probe):
        fishers = [BlockFisher(w.layout, w.alive()) for w in probe.weights[portion]]
        for example in examples(probe):
            # From the end, so that each array goes as soon as it has been added.
            arrays = gradient(example)[portion][::-1]
            for fisher in fishers:
                fisher.add(arrays.pop())
        fishers.reverse()
        while fishers:
            diagonals.append(fishers.pop().inverse_diagonal())
    return {"block_fisher_inverse_diagonal": diagonals}


def _portions(probe: Probe) -> Iterator[slice]:
    """Yield slices of consecutive weights whose F is held at one time."""
    sizes = [weight.layout.size for weight in probe.weights]
    limit = max(sum(sizes) * 2 // (BLOCK_SIZE + 1), _MIN_PORTION)
    start = 0
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or sum(sizes[start : stop + 1]) > limit:
            yield slice(start, stop)
            start = stop


class BlockFisher:
    """The empirical Fisher information of one weight, in blocks.

    Args:
        layout: roles of the weight's axes.
        alive: boolean array of the weight's shape, false where it is pruned: such weights are
            left out of F. `None`: none is pruned.

    Example:
        >>> fisher = BlockFisher(KernelLayout.default((2, 1)))
        >>> fisher.add(np.array([[2.0], [0.0]]))
        >>> fisher.add(np.array([[0.0], [2.0]]))
        >>> fisher.inverse_diagonal()  # 1 / (4/2 + 0.01 * 2)
        array([[0.4950495],
               [0.4950495]], dtype=float32)
    """

    def __init__(self, layout: KernelLayout, alive: np.ndarray | None = None) -> None:
        taps, inputs, outputs = layout.taps_shape
        self._layout = layout
        self._alive = alive
        self._rows, self._outputs = taps * inputs, outputs
        self._size = min(BLOCK_SIZE, self._rows)
        blocks = -(-self._rows // self._size) * outputs
        # The upper triangles, row by row; all blocks side by side, so that numpy runs along them.
        self._sums = np.zeros((self._size * (self._size + 1) // 2, blocks), np.float32)
        self._count = 0

    def add(self, gradient: np.ndarray) -> None:
        """Add the gradient of one example, an array of the weight's shape."""
        if self._alive is not None:
            gradient = np.where(self._alive, gradient, 0)
        blocks = self._to_blocks(gradient)
        start = 0
        for index, row in enumerate(blocks):
            stop = start + self._size - index
            self._sums[start:stop] += row * blocks[index:]
            start = stop
        self._count += 1

    def inverse_diagonal(self) -> np.ndarray:
        """Return the diagonal of F^-1, float32; infinite where a block never had a gradient."""
        inverse = np.empty((self._size, self._sums.shape[1]), np.float32)
        for start in range(0, inverse.shape[1], _CHUNK):
            chunk = slice(start, start + _CHUNK)
            inverse[:, chunk] = _inverse_diagonals(self._sums[:, chunk] / self._count, self._size)
        return self._from_blocks(inverse)

    def _to_blocks(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the weight's shape as `(block size, blocks)`, padded with zeros."""
        matrix = self._layout.to_taps(array).reshape(self._rows, self._outputs)
        padded = np.pad(matrix, ((0, -self._rows % self._size), (0, 0)))
        blocks = padded.reshape(-1, self._size, self._outputs).swapaxes(0, 1)
        return blocks.reshape(self._size, -1)

    def _from_blocks(self, blocks: np.ndarray) -> np.ndarray:
        rows = blocks.reshape(self._size, -1, self._outputs).swapaxes(0, 1)
        return self._layout.from_taps(rows.reshape(-1, self._outputs)[: self._rows])


def _inverse_diagonals(triangles: np.ndarray, size: int) -> np.ndarray:
    """Damp and invert symmetric matrices.

    Args:
        triangles: float array `(size * (size + 1) / 2, matrices)`, the upper triangles.
        size: rows of each matrix.

    Returns:
        Float64 array `(size, matrices)`.
    """
    first, second = np.triu_indices(size)
    matrices = np.empty((triangles.shape[1], size, size))
    matrices[:, first, second] = matrices[:, second, first] = triangles.T
    damping = DAMPING * np.trace(matrices, axis1=1, axis2=2) / size
    silent = damping == 0
    matrices[:, range(size), range(size)] += np.where(silent, 1, damping)[:, None]
    inverse = np.linalg.inv(matrices).diagonal(axis1=1, axis2=2).T
    return np.where(silent, np.inf, inverse)

"""Sparsity patterns: which shapes of weights are pruned together.

A pattern cuts a weight into *units* that are kept or pruned as a whole, and ranks them. To add one,
subclass `Pattern` and define `unit_scores` and `expand` (`Block` is the example to follow).
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.configurable import Configurable
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.kernel_layout import KernelLayout


class Pattern(Configurable):
    """Base class of the patterns."""

    @abc.abstractmethod
    def unit_scores(self, scores: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return one score per unit.

        Args:
            scores: float array of the weight's shape; high means keep.
            layout: roles of the axes.

        Returns:
            Float array `(units,)`: the mean score over each unit.
        """

    @abc.abstractmethod
    def expand(self, unit_mask: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the boolean mask of the weight's shape for a boolean array `(units,)`."""

    def unit_sizes(self, layout: KernelLayout) -> int | np.ndarray:
        """Return the number of weights in each unit: one int where all are equal."""
        return 1

    def prunable_size(self, layout: KernelLayout) -> int:
        """Return how many of the weights the pattern can prune at all."""
        return layout.size

    def rank(
        self, scores: np.ndarray, alive: np.ndarray | None, layout: KernelLayout
    ) -> np.ndarray:
        """Return the unit scores with -inf for units that must go and +inf for those that stay.

        Args:
            scores: float array of the weight's shape.
            alive: boolean array of the same shape, false for weights that are pruned for good;
                `None` if every weight may be kept.
            layout: roles of the axes.
        """
        if alive is None:
            return self.unit_scores(scores, layout)
        ranks = self.unit_scores(np.where(alive, scores, 0), layout)
        ranks[self.unit_scores(alive.astype(np.float32), layout) == 0] = -np.inf
        return ranks

    def check_target(self, sparsity: float) -> None:
        """Refuse a final sparsity that the pattern cannot have."""

    @classmethod
    def get(cls, identifier: Any) -> Any:
        """Turn a name, an "n:m" string, a serialized dict or a pattern into a pattern.

        Example:
            >>> Pattern.get("2:4")
            NM(n=2, m=4, axis='input')
        """
        if isinstance(identifier, str) and ":" in identifier:
            n, _, m = identifier.partition(":")
            if not (n.isdigit() and m.isdigit()):
                raise InvalidArgumentError(
                    f"An N:M pattern is written like '2:4'. Received: {identifier!r}"
                )
            return NM(int(n), int(m))
        return super().get(identifier)


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Every weight on its own."""

    def unit_scores(self, scores: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the scores, flattened."""
        return scores.reshape(-1)

    def expand(self, unit_mask: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the mask in the weight's shape."""
        return unit_mask.reshape(layout.shape)

    def rank(
        self, scores: np.ndarray, alive: np.ndarray | None, layout: KernelLayout
    ) -> np.ndarray:
        """Return the scores, -inf where a weight is pruned for good."""
        return (scores if alive is None else np.where(alive, scores, -np.inf)).reshape(-1)


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


@dataclass(frozen=True)
class NM(Pattern):
    """N kept of every M consecutive weights, such as 2:4 for NVIDIA's sparse tensor cores.

    Groups run along the input channels within one tap and one output. Where the channels do not
    fill the last group, that remainder stays dense and does not count.

    Args:
        n: weights kept in every group.
        m: size of a group.
        axis: `"input"` or `"output"`: the channels along which the groups run.

    Source: Mishra et al. (2021), "Accelerating Sparse Deep Neural Networks".

    Example:
        >>> from tfprune.masks import local_mask
        >>> weights = np.array([[1.0, -4, 3, 2, 8, 5, -6, 7]]).T
        >>> mask = local_mask(np.abs(weights), 0.5, NM(2, 4))
        >>> mask[:, 0].astype(int).tolist()
        [0, 1, 1, 0, 1, 0, 0, 1]
    """

    n: int
    m: int
    axis: str = "input"

    def __post_init__(self) -> None:
        if not (isinstance(self.n, int) and isinstance(self.m, int)):
            raise InvalidTypeError(f"`n` and `m` must be ints. Received: {self.n!r}, {self.m!r}")
        if not 1 <= self.n < self.m:
            raise InvalidArgumentError(
                f"N:M keeps n of every m weights, with 1 <= n < m. Received: n={self.n}, m={self.m}"
            )
        if self.axis not in ("input", "output"):
            raise InvalidArgumentError(f"`axis` is 'input' or 'output'. Received: {self.axis!r}")

    @property
    def sparsity(self) -> float:
        """The sparsity of a complete N:M pattern, 1 - n/m."""
        return 1 - self.n / self.m

    def check_target(self, sparsity: float) -> None:
        """Refuse any final sparsity but 1 - n/m.

        Raises:
            InvalidArgumentError: if `sparsity` is another one.
        """
        if abs(sparsity - self.sparsity) > 1e-9:
            raise InvalidArgumentError(
                f"The pattern {self.n}:{self.m} has sparsity {self.sparsity:g}, so the schedule "
                f"must end there. Received a final sparsity of {sparsity:g}."
            )

    def prunable_size(self, layout: KernelLayout) -> int:
        """Return the number of weights in full groups."""
        taps, inputs, outputs = layout.taps_shape
        along, across = (inputs, outputs) if self.axis == "input" else (outputs, inputs)
        return taps * (along - along % self.m) * across

    def unit_scores(self, scores: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the scores in the order `(taps, inputs, outputs)`, flattened."""
        return layout.to_taps(scores).reshape(-1)

    def expand(self, unit_mask: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the mask in the weight's shape."""
        return layout.from_taps(unit_mask)

    def rank(
        self, scores: np.ndarray, alive: np.ndarray | None, layout: KernelLayout
    ) -> np.ndarray:
        """Return the scores with +inf for the best n of each group and for the remainder.

        At a lower sparsity than 1 - n/m the worst of the others go first, so a schedule leads from
        dense to N:M without a jump.
        """
        ranks = scores if alive is None else np.where(alive, scores, -np.inf)
        ranks = layout.to_taps(ranks).astype(scores.dtype, copy=True)
        along = ranks if self.axis == "input" else ranks.swapaxes(1, 2)
        taps, length, across = along.shape
        full = length - length % self.m
        groups = along[:, :full].reshape(taps, full // self.m, self.m, across)
        # Stable: among equals the lower index is kept, so two runs prune the same weights.
        best = np.argsort(-groups, axis=2, kind="stable")[:, :, : self.n]
        protected = np.where(np.take_along_axis(groups, best, axis=2) == -np.inf, -np.inf, np.inf)
        groups = groups.copy()
        np.put_along_axis(groups, best, protected.astype(groups.dtype), axis=2)
        along[:, :full] = groups.reshape(taps, full, across)
        rest = along[:, full:]
        rest[rest > -np.inf] = np.inf
        return ranks.reshape(-1)


def _matrix_shape(layout: KernelLayout) -> tuple[int, int]:
    taps, inputs, outputs = layout.taps_shape
    return taps * inputs, outputs

"""Vectors: consecutive weights along one axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.kernel_layout import KernelLayout
from tfprune.patterns.base import Pattern


@dataclass(frozen=True)
class Vector(Pattern):
    """Consecutive weights along the channels, within one tap.

    The last vector is shorter where the length does not divide the channels.

    Args:
        length: weights in a vector.
        axis: `"input"` or `"output"`: the channels along which the vectors lie.

    Source: Mao et al. (2017), "Exploring the Regularity of Sparse Structure in Convolutional Neural
    Networks".

    Example:
        >>> layout = KernelLayout.default((3, 2))
        >>> scores = np.array([[1.0, 5], [3, 5], [4, 6]])
        >>> Vector(2).unit_scores(scores, layout).tolist()
        [2.0, 5.0, 4.0, 6.0]
    """

    length: int
    axis: str = "input"

    def __post_init__(self) -> None:
        if not isinstance(self.length, int):
            raise InvalidTypeError(f"`length` must be an int. Received: {self.length!r}")
        if self.length < 1:
            raise InvalidArgumentError(f"`length` must be at least 1. Received: {self.length}")
        if self.axis not in ("input", "output"):
            raise InvalidArgumentError(f"`axis` is 'input' or 'output'. Received: {self.axis!r}")

    def unit_scores(self, scores: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the mean score of each vector, in the order `(taps, inputs, outputs)`."""
        starts = np.arange(0, layout.taps_shape[self._along], self.length)
        sums = np.add.reduceat(layout.to_taps(scores), starts, axis=self._along)
        return sums.reshape(-1) / self.unit_sizes(layout)

    def unit_sizes(self, layout: KernelLayout) -> int | np.ndarray:
        """Return the vectors' lengths: one int if they are equal."""
        shape = list(layout.taps_shape)
        channels = shape[self._along]
        lengths = np.minimum(self.length, channels - np.arange(0, channels, self.length))
        if (lengths == lengths[0]).all():
            return int(lengths[0])
        shape[self._along] = lengths.size
        return np.broadcast_to(lengths[:, None] if self.axis == "input" else lengths, shape).ravel()

    def expand(self, unit_mask: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the mask in the weight's shape."""
        taps, inputs, outputs = layout.taps_shape
        vectors = (taps, -1, outputs) if self.axis == "input" else (taps, inputs, -1)
        repeated = unit_mask.reshape(vectors).repeat(self.length, axis=self._along)
        return layout.from_taps(repeated[:, :inputs, :outputs])

    @property
    def _along(self) -> int:
        """The axis of `(taps, inputs, outputs)` along which the vectors lie."""
        return 1 if self.axis == "input" else 2

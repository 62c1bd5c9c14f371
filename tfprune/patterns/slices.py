"""Units that span whole axes of `(taps, inputs, outputs)`: kernels, rows, columns, channels."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.kernel_layout import KernelLayout
from tfprune.patterns.base import Pattern


class Slices(Pattern):
    """Base of the patterns whose units span whole axes: define `spanned_axes`."""

    @property
    @abc.abstractmethod
    def spanned_axes(self) -> tuple[int, ...]:
        """The axes of `(taps, inputs, outputs)` that lie within one unit."""

    def unit_scores(self, scores: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the mean score of each unit, in the order of the other axes."""
        return layout.to_taps(scores).mean(axis=self.spanned_axes).reshape(-1)

    def unit_sizes(self, layout: KernelLayout) -> int | np.ndarray:
        """Return the size of a unit."""
        return math.prod(layout.taps_shape[axis] for axis in self.spanned_axes)

    def expand(self, unit_mask: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the mask in the weight's shape."""
        shape = list(layout.taps_shape)
        for axis in self.spanned_axes:
            shape[axis] = 1
        taps = np.broadcast_to(unit_mask.reshape(shape), layout.taps_shape)
        return layout.from_taps(taps).copy()


@dataclass(frozen=True)
class Kernel(Slices):
    """Whole kernels: all taps between one input and one output channel.

    In a weight without taps, such as a Dense kernel, every weight is on its own.

    Source: Mao et al. (2017), "Exploring the Regularity of Sparse Structure in Convolutional Neural
    Networks".

    Example:
        >>> conv = KernelLayout.default((2, 1, 1, 2))
        >>> Kernel().unit_scores(np.array([1.0, 5, 3, 7]).reshape(conv.shape), conv).tolist()
        [2.0, 6.0]
    """

    spanned_axes: ClassVar[tuple[int, ...]] = (0,)


@dataclass(frozen=True)
class Row(Slices):
    """Rows of the im2col matrix: one tap of one input channel, over all outputs.

    Source: Wen et al. (2016), "Learning Structured Sparsity in Deep Neural Networks", where it is
    called shape-wise.

    Example:
        >>> Row().unit_scores(np.array([[1.0, 5], [3, 7]]), KernelLayout.default((2, 2))).tolist()
        [3.0, 5.0]
    """

    spanned_axes: ClassVar[tuple[int, ...]] = (2,)


@dataclass(frozen=True)
class Column(Slices):
    """Columns of the im2col matrix: everything that makes one output; the same as `Filter`."""

    whole_outputs: ClassVar[bool] = True
    spanned_axes: ClassVar[tuple[int, ...]] = (0, 1)


@dataclass(frozen=True)
class Filter(Slices):
    """Whole filters: everything that makes one output channel, or one unit of a Dense layer.

    A masked filter still puts out its bias.

    Source: Li et al. (2017), "Pruning Filters for Efficient ConvNets".

    Example:
        >>> weights = np.array([[1.0, 5], [3, 7]])
        >>> Filter().unit_scores(weights, KernelLayout.default((2, 2))).tolist()
        [2.0, 6.0]
    """

    whole_outputs: ClassVar[bool] = True
    spanned_axes: ClassVar[tuple[int, ...]] = (0, 1)


@dataclass(frozen=True)
class Channel(Slices):
    """Everything that reads one input channel (in a grouped convolution, one of each group).

    Source: He, Zhang & Sun (2017), "Channel Pruning for Accelerating Very Deep Neural Networks".

    Example:
        >>> weights = np.array([[1.0, 5], [3, 7]])
        >>> Channel().unit_scores(weights, KernelLayout.default((2, 2))).tolist()
        [3.0, 5.0]
    """

    spanned_axes: ClassVar[tuple[int, ...]] = (0, 2)

"""The same sparsity everywhere, or everywhere but at both ends of the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfprune.allocation.base import Allocation, WeightInfo
from tfprune.allocation.exact import exact_sparsities
from tfprune.errors import InvalidArgumentError
from tfprune.kernel_layout import KernelLayout
from tfprune.masks import kept_count

_LAST_DENSITY = 0.2


@dataclass(frozen=True)
class Uniform(Allocation):
    """The same sparsity in every weight; `PerLayer` makes exceptions.

    Source: Zhu & Gupta (2017), "To prune, or not to prune".

    Example:
        >>> layers = [WeightInfo(name, KernelLayout.default((4, 4))) for name in "ab"]
        >>> Uniform().sparsities(0.5, layers, 0.5)
        [0.5, 0.5]
    """

    def sparsities(
        self, sparsity: float, weights: Sequence[WeightInfo], final_sparsity: float
    ) -> list[float]:
        """Return `sparsity` for each weight."""
        return [sparsity] * len(weights)


@dataclass(frozen=True)
class UniformPlus(Allocation):
    """The first convolution dense, the last layer at most 80 %, and the others make up for it.

    All others have one sparsity, such that the total is exact. First and last are of the weights
    that are pruned; without a convolution nothing is held dense.

    Source: Gale, Elsen & Hooker (2019), "The State of Sparsity in Deep Neural Networks".

    Example:
        >>> shapes = [(3, 3, 1, 4), (10, 20), (10, 10)]
        >>> layers = [WeightInfo(f"w{i}", KernelLayout.default(s)) for i, s in enumerate(shapes)]
        >>> UniformPlus().sparsities(0.75, layers, 0.75)
        [0.0, 0.86, 0.8]
    """

    def sparsities(
        self, sparsity: float, weights: Sequence[WeightInfo], final_sparsity: float
    ) -> list[float]:
        """Return the sparsities at the present target.

        Raises:
            InvalidArgumentError: if the first and the last weight are too large a part of the whole
                to reach the target.
        """
        sizes = [weight.layout.size for weight in weights]
        least = [1] * len(sizes)
        least[-1] = max(math.ceil(round(_LAST_DENSITY * sizes[-1], 6)), 1)
        convolution = next((i for i, w in enumerate(weights) if _has_taps(w.layout)), None)
        if convolution is not None:
            least[convolution] = sizes[convolution]
        kept = kept_count(sum(sizes), sparsity)
        if sum(least) > kept and sum(least) > len(sizes):
            raise InvalidArgumentError(
                f"A sparsity of {sparsity:g} is impossible with a dense first convolution and 20 % "
                f"of the last layer: at most {1 - sum(least) / sum(sizes):.4g}. Lower it, or use "
                "the allocation 'erk'."
            )
        return exact_sparsities(max(kept, sum(least)), sizes, sizes, least)


def _has_taps(layout: KernelLayout) -> bool:
    return len(layout.shape) > len(layout.input_axes + layout.output_axes)

"""`SparsePart`: weights that a runtime runs sparse together, or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

_NAMES_SHOWN = 6


@dataclass(frozen=True, eq=False)
class SparsePart:
    """Weights that a runtime runs sparse together, once enough of them are zero.

    Args:
        runtime: where, in words, such as "XNNPACK's sparse mode".
        needed: the fraction of zeros over all of the weights that has to be exceeded.
        kernels: the kernels of the model in it, pruned or not.
        other_weights: how many weights an export adds to them.
        other_zeros: how many of those are zero.
    """

    runtime: str
    needed: float
    kernels: tuple[keras.Variable, ...]
    other_weights: int = 0
    other_zeros: int = 0

    def shortfall(self, planned: Mapping[int, int]) -> str:
        """Return in words that the part will run dense; "" if it will have zeros enough.

        Args:
            planned: how many zeros each kernel that is pruned will have, by `id`. Of the others,
                those count that are there now.
        """
        sizes = {id(kernel): math.prod(kernel.shape) for kernel in self.kernels}
        unpruned = [kernel for kernel in self.kernels if id(kernel) not in planned]
        fixed = self.other_zeros + sum(_zeros(kernel) for kernel in unpruned)
        total = self.other_weights + sum(sizes.values())
        zeros = fixed + sum(planned[i] for i in sizes if i in planned)
        if zeros > self.needed * total:
            return ""
        kernels = f"{len(self.kernels)} kernels" if len(self.kernels) > 1 else "1 kernel"
        found = (
            f"{self.runtime} runs {kernels} ({self.kernels[0].path}, ...) sparse if more than "
            f"{self.needed:.1%} of their {total:,} weights are zero. Planned are "
            f"{zeros / total:.1%}, so they would run dense, and pruning gains no speed there."
        )
        if unpruned:
            names = ", ".join(kernel.path for kernel in unpruned[:_NAMES_SHOWN])
            more = f" and {len(unpruned) - _NAMES_SHOWN} more" * (len(unpruned) > _NAMES_SHOWN)
            left = sum(sizes[id(kernel)] for kernel in unpruned)
            found += f" {left:,} of the weights are not pruned: {names}{more}."
        asked = (self.needed * total - fixed) / sum(sizes[i] for i in sizes if i in planned)
        if asked >= 1:
            return f"{found} Without those it cannot be reached: prune them too."
        return f"{found} Prune the {'others' if unpruned else 'weights'} to more than {asked:.1%}."


def _zeros(kernel: keras.Variable) -> int:
    values = keras.ops.convert_to_numpy(kernel)
    return values.size - int(np.count_nonzero(values))

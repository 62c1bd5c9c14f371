"""Erdos-Renyi densities: small layers keep more of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfprune.allocation.base import Allocation, WeightInfo
from tfprune.allocation.exact import exact_sparsities
from tfprune.kernel_layout import KernelLayout
from tfprune.masks import kept_count


@dataclass(frozen=True)
class Erk(Allocation):
    """Densities by the sum of a kernel's dimensions over their product.

        density = factor * (inputs + outputs + height + width) / (inputs * outputs * height * width)

    with one factor for all layers, such that the total is exact. Layers that would have a density
    above 1 stay dense, and the others share what is left.

    Args:
        kernel: whether height and width count (Erdos-Renyi-Kernel); with `False` it is
            (inputs + outputs) / (inputs * outputs), the plain Erdos-Renyi.

    Source: Evci et al. (2020), "Rigging the Lottery: Making All Tickets Winners"; Mocanu et al.
    (2018), "Scalable training of artificial neural networks with adaptive sparse connectivity
    inspired by network science".

    Example:
        >>> layers = [WeightInfo(f"{n}", KernelLayout.default((n, n))) for n in (8, 16)]
        >>> Erk().sparsities(0.75, layers, 0.75)
        [0.578125, 0.79296875]
    """

    kernel: bool = True

    def sparsities(
        self, sparsity: float, weights: Sequence[WeightInfo], final_sparsity: float
    ) -> list[float]:
        """Return the sparsities at the present target."""
        sizes = [weight.layout.size for weight in weights]
        # Density times size: the product of the dimensions cancels out.
        proportions = [self._dimensions(weight.layout) for weight in weights]
        kept = max(kept_count(sum(sizes), sparsity), len(sizes))
        return exact_sparsities(kept, sizes, proportions, [1] * len(sizes))

    def _dimensions(self, layout: KernelLayout) -> int:
        taps, inputs, outputs = layout.taps_shape
        roles = layout.input_axes + layout.output_axes
        if not self.kernel:
            return (inputs + outputs) * taps
        return inputs + outputs + sum(n for a, n in enumerate(layout.shape) if a not in roles)

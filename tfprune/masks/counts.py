"""How many weights are kept."""

from __future__ import annotations

from collections.abc import Sequence

from tfprune.kernel_layout import KernelLayout
from tfprune.patterns import Pattern


def kept_count(size: int, sparsity: float) -> int:
    """Return how many of `size` weights are kept at `sparsity`.

    Example:
        >>> [kept_count(10, s) for s in (0.0, 0.25, 0.5, 0.99)]
        [10, 8, 5, 1]
    """
    return max(round(size * (1.0 - float(sparsity))), 1)


def kept_weights(layout: KernelLayout, sparsity: float, pattern: Pattern) -> int:
    """Return how many weights of one layout a pattern keeps at `sparsity`.

    Weights that the pattern cannot prune (an incomplete N:M group) are all kept, and do not count
    towards the sparsity. Exact where all units are of one size, else to one unit.
    """
    kept, size = target([layout], sparsity, pattern), pattern.unit_sizes(layout)
    return max(round(kept / size), 1) * size if isinstance(size, int) else kept


def target(layouts: Sequence[KernelLayout], sparsity: float, pattern: Pattern) -> int:
    """Return how many weights of all layouts together should be kept, units not considered."""
    prunable = sum(pattern.prunable_size(layout) for layout in layouts)
    untouchable = sum(layout.size for layout in layouts) - prunable
    return untouchable + (kept_count(prunable, sparsity) if prunable else 0)

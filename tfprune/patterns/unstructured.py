"""Single weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.kernel_layout import KernelLayout
from tfprune.patterns.base import Pattern


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
        if alive is None or alive.all():
            return scores.reshape(-1)
        # In a third of the time of `np.where`: plus or minus a half, times infinity, is the bound.
        bounds = (alive - np.float32(0.5)) * np.float32(np.inf)
        return np.minimum(scores, bounds).reshape(-1)

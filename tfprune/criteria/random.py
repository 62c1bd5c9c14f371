"""Random scores: the baseline that every criterion has to beat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from tfprune.criteria.base import Criterion, WeightView


@dataclass(frozen=True)
class Random(Criterion):
    """Uniform random scores, the same for the same seed, weight path and step.

    Args:
        seed: seed of the scores.
    """

    seed: int = 0

    def score(self, weight: WeightView) -> np.ndarray:
        """Return uniform float32 scores in [0, 1)."""
        # crc32 and not hash(): Python salts the hash of strings in every process.
        entropy = [self.seed, zlib.crc32(weight.path.encode()), weight.step]
        generator = np.random.default_rng(entropy)
        return generator.random(weight.values.shape, dtype=np.float32)

"""Dynamic sparse training: at every update some weights go and as many others grow back.

Use with a constant sparsity, from the first step on: the model is sparse all through training. The
first masks are random.

    prune(model, ConstantSparsity(0.9, end_step=Fraction(0.75)), criterion="rigl", allocation="erk")
"""

from __future__ import annotations

import abc
import math
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfprune.criteria.base import Criterion, WeightView
from tfprune.errors import InvalidArgumentError


@dataclass(frozen=True)
class DropAndGrow(Criterion):
    """Base of the criteria that drop the smallest weights and let others grow.

    The share that is dropped falls with a cosine, from `drop_fraction` to 0 at the schedule's end
    (it stays where the schedule has no end). Weights that grow back start at zero.

    Args:
        drop_fraction: share of the kept weights that the first update drops, in (0, 1).
        seed: seed of the first masks and of random growth.
    """

    drop_fraction: float = 0.3
    seed: int = 0
    scores_pruned: ClassVar[bool] = True
    within_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.drop_fraction < 1:
            raise InvalidArgumentError(
                f"`drop_fraction` must be in (0, 1): pass 0.3 to exchange 30 % of the kept "
                f"weights. Received: {self.drop_fraction!r}"
            )

    @abc.abstractmethod
    def growth(self, weight: WeightView) -> np.ndarray:
        """Return float scores of the weight's shape: which pruned weights should grow first."""

    def score(self, weight: WeightView) -> np.ndarray:
        """Return ranks: the weights that stay above those that grow, by their growth scores."""
        alive = weight.alive
        if alive is None or alive.all():
            return self._random(weight)
        kept = int(np.count_nonzero(alive))
        share = self.drop_fraction * (1 + math.cos(math.pi * weight.progress)) / 2
        staying = kept - round(share * kept)
        magnitude = np.where(alive, np.abs(weight.values), -np.inf).reshape(-1)
        # Ranks and not values: growth and magnitude have no common scale.
        scores = _ranks(self.growth(weight).reshape(-1))
        strongest = np.argsort(-magnitude, kind="stable")[:staying]
        scores[strongest] = scores.size + np.arange(staying, 0, -1)
        return scores.reshape(weight.values.shape)

    def _random(self, weight: WeightView) -> np.ndarray:
        # crc32 and not hash(): Python salts the hash of strings in every process.
        entropy = [self.seed, zlib.crc32(weight.path.encode()), weight.step]
        return np.random.default_rng(entropy).random(weight.values.shape)


@dataclass(frozen=True)
class Rigl(DropAndGrow):
    """Let the weights grow whose loss gradient is largest.

    The gradient is summed over the training steps since the last update, inside of the compiled
    step (the paper takes one batch's).

    Source: Evci et al. (2020), "Rigging the Lottery: Making All Tickets Winners".
    """

    accumulates: ClassVar[bool] = True
    restarts: ClassVar[bool] = True

    def increment(self, values: Any, gradient: Any) -> Any:
        """Return the gradient."""
        return gradient

    def growth(self, weight: WeightView) -> np.ndarray:
        """Return the gradient's magnitude; dropped weights may grow at once, as in the paper."""
        return np.abs(weight.evidence["accumulated"])


@dataclass(frozen=True)
class Set(DropAndGrow):
    """Let random weights grow.

    Source: Mocanu et al. (2018), "Scalable training of artificial neural networks with adaptive
    sparse connectivity inspired by network science" (Sparse Evolutionary Training).
    """

    def growth(self, weight: WeightView) -> np.ndarray:
        """Return random scores; the weights that are dropped now come last."""
        return self._random(weight) - weight.alive


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return each value's place in ascending order, as floats; the lower index wins a tie."""
    order = np.argsort(-values, kind="stable")
    ranks = np.empty(values.size)
    ranks[order] = np.arange(values.size, 0, -1)
    return ranks

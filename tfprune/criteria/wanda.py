"""Wanda: a weight matters as much as what it adds to the output, |w| times its input's norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.criteria.base import Criterion, WeightView


@dataclass(frozen=True)
class Wanda(Criterion):
    """Score |w| * ||x||, with x all the values that the weight is multiplied with.

    The paper compares the weights of one output with each other; here they are compared within
    whatever the pattern and the allocation compare, by default the whole layer.

    Source: Sun et al. (2023), "A Simple and Effective Pruning Approach for Large Language Models".

    Example:
        >>> evidence = {"input_norm": np.array([[1.0], [10.0]])}
        >>> Wanda().score(WeightView(np.array([[2.0], [-0.5]]), evidence=evidence)).tolist()
        [[2.0], [5.0]]
    """

    evidence: ClassVar[tuple[str, ...]] = ("input_norm",)

    def score(self, weight: WeightView) -> np.ndarray:
        """Return |w| * ||x||."""
        scores = np.abs(weight.values)
        scores *= weight.evidence["input_norm"]
        return scores

"""Progressive sub-network pruning: one part of the network after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.allocation.base import Allocation, WeightInfo, progress
from tfprune.allocation.keys import Key, as_key, first_matches, list_paths, saved_key
from tfprune.errors import InvalidArgumentError, InvalidTypeError


@dataclass(frozen=True)
class Staged(Allocation):
    """One stage of the network is pruned after the other; in the end all have the same sparsity.

    Of n stages, stage i goes from 0 to the final sparsity while the schedule goes from i/n to
    (i+1)/n of its own.

    Args:
        stages: number of consecutive stages, of about as many parameters each; or what the stages
            consist of: a sequence of layer names, weight paths or regular expressions on the path
            (as `re.compile(...)`), in the order of pruning. The first that fits a weight decides.

    Example:
        >>> from tfprune.kernel_layout import KernelLayout
        >>> layers = [WeightInfo(name, KernelLayout.default((4, 4))) for name in "ab"]
        >>> [Staged(2).sparsities(s, layers, 0.5) for s in (0.0, 0.25, 0.5)]
        [[0.0, 0.0], [0.5, 0.0], [0.5, 0.5]]
    """

    stages: int | Sequence[Key]

    def __post_init__(self) -> None:
        number = isinstance(self.stages, int) and not isinstance(self.stages, bool)
        if not number and not isinstance(self.stages, list | tuple):
            raise InvalidTypeError(
                "`stages` must be a number of stages, or a list of layer names, weight paths or "
                f"`re.compile(...)`. Received: {self.stages!r}"
            )
        if not number:
            object.__setattr__(self, "stages", tuple(as_key(key) for key in self.stages))
        if self._count < 1:
            raise InvalidArgumentError(f"There must be at least one stage. Received: {self.stages}")

    def sparsities(
        self, sparsity: float, weights: Sequence[WeightInfo], final_sparsity: float
    ) -> list[float]:
        """Return the sparsity of each weight's stage.

        Raises:
            InvalidArgumentError: if a stage has no weights, or a weight no stage.
        """
        begun = progress(sparsity, final_sparsity) * self._count
        return [
            final_sparsity * min(max(begun - stage, 0.0), 1.0) for stage in self._stages_of(weights)
        ]

    def get_config(self) -> dict[str, Any]:
        """Return the stages as plain values."""
        if isinstance(self.stages, int):
            return {"stages": self.stages}
        return {"stages": [saved_key(key) for key in self.stages]}

    @property
    def _count(self) -> int:
        return self.stages if isinstance(self.stages, int) else len(self.stages)

    def _stages_of(self, weights: Sequence[WeightInfo]) -> list[int]:
        if isinstance(self.stages, int):
            return _split([weight.layout.size for weight in weights], self.stages)
        matches = first_matches(self.stages, weights)
        without = [w for w, match in zip(weights, matches, strict=True) if match is None]
        if without:
            raise InvalidArgumentError(
                f"These weights are in no stage: {list_paths(without)}. Add stages for them, or "
                "exclude them from pruning."
            )
        return matches


def _split(sizes: Sequence[int], count: int) -> list[int]:
    """Return the part that each of some consecutive sizes belongs to, parts as equal as can be."""
    if count > len(sizes):
        raise InvalidArgumentError(
            f"{len(sizes)} weights cannot be split in {count} stages: ask for at most {len(sizes)}."
        )
    reached = np.cumsum(sizes)
    cuts = [0]
    for part in range(1, count):
        # Every part before and after this cut has to get a weight.
        first, last = cuts[-1] + 1, len(sizes) - (count - part)
        distances = np.abs(reached[first - 1 : last] - reached[-1] * part / count)
        cuts.append(first + int(distances.argmin()))
    return (np.searchsorted(cuts, np.arange(len(sizes)), side="right") - 1).tolist()

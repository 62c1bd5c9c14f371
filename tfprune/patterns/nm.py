"""N kept of every M weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.kernel_layout import KernelLayout
from tfprune.patterns.base import Pattern


@dataclass(frozen=True)
class NM(Pattern):
    """N kept of every M consecutive weights, such as 2:4 for NVIDIA's sparse tensor cores.

    Groups run along the input channels within one tap and one output. Where the channels do not
    fill the last group, that remainder stays dense and does not count.

    Args:
        n: weights kept in every group.
        m: size of a group.
        axis: `"input"` or `"output"`: the channels along which the groups run.

    Source: Mishra et al. (2021), "Accelerating Sparse Deep Neural Networks".

    Example:
        >>> from tfprune.masks import local_mask
        >>> weights = np.array([[1.0, -4, 3, 2, 8, 5, -6, 7]]).T
        >>> mask = local_mask(np.abs(weights), 0.5, NM(2, 4))
        >>> mask[:, 0].astype(int).tolist()
        [0, 1, 1, 0, 1, 0, 0, 1]
    """

    n: int
    m: int
    axis: str = "input"

    def __post_init__(self) -> None:
        if not (isinstance(self.n, int) and isinstance(self.m, int)):
            raise InvalidTypeError(f"`n` and `m` must be ints. Received: {self.n!r}, {self.m!r}")
        if not 1 <= self.n < self.m:
            raise InvalidArgumentError(
                f"N:M keeps n of every m weights, with 1 <= n < m. Received: n={self.n}, m={self.m}"
            )
        if self.axis not in ("input", "output"):
            raise InvalidArgumentError(f"`axis` is 'input' or 'output'. Received: {self.axis!r}")

    @property
    def sparsity(self) -> float:
        """The sparsity of a complete N:M pattern, 1 - n/m."""
        return 1 - self.n / self.m

    def check_target(self, sparsity: float) -> None:
        """Refuse any final sparsity but 1 - n/m.

        Raises:
            InvalidArgumentError: if `sparsity` is another one.
        """
        if abs(sparsity - self.sparsity) > 1e-9:
            raise InvalidArgumentError(
                f"The pattern {self.n}:{self.m} has sparsity {self.sparsity:g}, so the schedule, "
                f"and every layer with it, must end there. Received: {sparsity:g}"
            )

    def prunable_size(self, layout: KernelLayout) -> int:
        """Return the number of weights in full groups."""
        taps, inputs, outputs = layout.taps_shape
        along, across = (inputs, outputs) if self.axis == "input" else (outputs, inputs)
        return taps * (along - along % self.m) * across

    def unit_scores(self, scores: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the scores in the order `(taps, inputs, outputs)`, flattened."""
        return layout.to_taps(scores).reshape(-1)

    def expand(self, unit_mask: np.ndarray, layout: KernelLayout) -> np.ndarray:
        """Return the mask in the weight's shape."""
        return layout.from_taps(unit_mask)

    def rank(
        self, scores: np.ndarray, alive: np.ndarray | None, layout: KernelLayout
    ) -> np.ndarray:
        """Return the scores with +inf for the best n of each group and for the remainder.

        At a lower sparsity than 1 - n/m the worst of the others go first, so a schedule leads from
        dense to N:M without a jump.
        """
        ranks = scores if alive is None else np.where(alive, scores, -np.inf)
        ranks = layout.to_taps(ranks).astype(scores.dtype, copy=True)
        along = ranks if self.axis == "input" else ranks.swapaxes(1, 2)
        taps, length, across = along.shape
        full = length - length % self.m
        groups = along[:, :full].reshape(taps, full // self.m, self.m, across)
        # Stable: among equals the lower index is kept, so two runs prune the same weights.
        best = np.argsort(-groups, axis=2, kind="stable")[:, :, : self.n]
        protected = np.where(np.take_along_axis(groups, best, axis=2) == -np.inf, -np.inf, np.inf)
        groups = groups.copy()
        np.put_along_axis(groups, best, protected.astype(groups.dtype), axis=2)
        along[:, :full] = groups.reshape(taps, full, across)
        rest = along[:, full:]
        rest[rest > -np.inf] = np.inf
        return ranks.reshape(-1)

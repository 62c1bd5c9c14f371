"""Labels: which channels must go together, and which cannot go at all.

Each channel that a layer makes gets a number of its own, its *id*. Wherever two channels meet - an
addition, a shared weight - their ids are united; where channels cannot be taken away they are
frozen, with the reason. Ids that are united form a *unit*. numpy only: a union-find in arrays.
"""

from __future__ import annotations

import numpy as np


class Labels:
    """A union-find over ids, in which units can be frozen.

    Example:
        >>> labels = Labels()
        >>> first, second = labels.new(3), labels.new(3)
        >>> labels.unite(first, second)
        >>> labels.freeze(second[:1], "an output of the model")
        >>> labels.roots(second).tolist(), labels.is_frozen(first).tolist()
        ([0, 1, 2], [True, False, False])
    """

    def __init__(self) -> None:
        self._parents = np.zeros(0, np.int64)
        self._reasons: dict[int, str] = {}

    @property
    def count(self) -> int:
        """How many ids there are."""
        return len(self._parents)

    def new(self, count: int, reason: str | None = None) -> np.ndarray:
        """Return new ids.

        Args:
            count: how many.
            reason: why they are frozen from the start; `None` if they are not.
        """
        ids = np.arange(len(self._parents), len(self._parents) + count)
        self._parents = np.concatenate([self._parents, ids])
        if reason is not None:
            self.freeze(ids, reason)
        return ids

    def roots(self, ids: np.ndarray) -> np.ndarray:
        """Return the id that stands for the unit of each id: the least of the unit."""
        ids = np.asarray(ids, np.int64)
        while True:
            parents = self._parents[ids]
            if np.array_equal(parents, ids):
                return ids
            ids = parents

    def unite(self, first: np.ndarray, second: np.ndarray) -> None:
        """Unite ids pairwise; a unit is frozen if a part of it was.

        Args:
            first: ids.
            second: as many ids.
        """
        pairs = np.stack(np.broadcast_arrays(self.roots(first), self.roots(second)), axis=-1)
        pairs = pairs.reshape(-1, 2)
        for one, other in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist():
            low, high = sorted((self._root(one), self._root(other)))
            if low == high:
                continue
            self._parents[high] = low
            reason = self._reasons.pop(high, None)
            if reason is not None:
                self._reasons.setdefault(low, reason)

    def freeze(self, ids: np.ndarray, reason: str) -> None:
        """Freeze the units of some ids; the first reason stays."""
        for root in np.unique(self.roots(ids)).tolist():
            self._reasons.setdefault(root, reason)

    def is_frozen(self, ids: np.ndarray) -> np.ndarray:
        """Return a boolean array, true where an id's unit is frozen."""
        frozen = np.fromiter(self._reasons, np.int64, len(self._reasons))
        return np.isin(self.roots(ids), frozen)

    def reasons(self, ids: np.ndarray) -> list[str]:
        """Return the different reasons for which some of the ids are frozen."""
        roots = np.unique(self.roots(ids)).tolist()
        return list(dict.fromkeys(self._reasons[root] for root in roots if root in self._reasons))

    def _root(self, one: int) -> int:
        while self._parents[one] != one:
            self._parents[one] = self._parents[self._parents[one]]
            one = int(self._parents[one])
        return one

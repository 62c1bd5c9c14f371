"""Sparsities given layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfprune.allocation.base import Allocation, WeightInfo, progress
from tfprune.allocation.keys import Key, as_key, first_matches, saved_key
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.schedules import check_sparsity


@dataclass(frozen=True)
class PerLayer(Allocation):
    """Given final sparsities for some layers, and the schedule's for all others.

    While the schedule is on its way, every layer has come as far on its own.

    Args:
        layers: final sparsities by layer name, weight path or regular expression on the path (as
            `re.compile(...)`); the first that fits a weight decides. A dict, or pairs.
        default: final sparsity of the other weights; the schedule's if `None`.

    Example:
        >>> from tfprune.kernel_layout import KernelLayout
        >>> layers = [WeightInfo(n, KernelLayout.default((4, 4)), (n,)) for n in ("conv1", "conv2")]
        >>> PerLayer({"conv1": 0.05}).sparsities(0.8, layers, 0.8)
        [0.05, 0.8]
        >>> PerLayer({"conv1": 0.05}).sparsities(0.4, layers, 0.8)
        [0.025, 0.4]
    """

    layers: Mapping[Key, float] | Sequence[tuple[Key, float]]
    default: float | None = None

    def __post_init__(self) -> None:
        pairs = self.layers.items() if isinstance(self.layers, Mapping) else self.layers
        try:
            pairs = [(key, sparsity) for key, sparsity in pairs]
        except (TypeError, ValueError):
            raise InvalidTypeError(
                "`layers` must be a dict of sparsities by layer, such as {'conv1': 0.05}. "
                f"Received: {self.layers!r}"
            ) from None
        if not pairs:
            raise InvalidArgumentError("`layers` names no layer: use the allocation 'uniform'.")
        for key, sparsity in pairs:
            check_sparsity(f"layers[{key!r}]", sparsity)
        if self.default is not None:
            check_sparsity("default", self.default)
        layers = tuple((as_key(key), float(sparsity)) for key, sparsity in pairs)
        object.__setattr__(self, "layers", layers)

    def sparsities(
        self, sparsity: float, weights: Sequence[WeightInfo], final_sparsity: float
    ) -> list[float]:
        """Return each weight's own sparsity, scaled by how far the schedule is.

        Raises:
            InvalidArgumentError: if a key decides on no weight.
        """
        matches = first_matches([key for key, _ in self.layers], weights)
        done = progress(sparsity, final_sparsity)
        other = sparsity if self.default is None else self.default * done
        return [other if match is None else self.layers[match][1] * done for match in matches]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, the layers as pairs: a regular expression is no key in JSON."""
        return {
            "layers": [[saved_key(key), sparsity] for key, sparsity in self.layers],
            "default": self.default,
        }


@dataclass(frozen=True)
class PerWeight(Allocation):
    """Final sparsities by a function of your own; saved models hold its results, by weight path.

    Args:
        function: takes a `WeightInfo` and returns the weight's final sparsity, in [0, 1).

    Example:
        >>> from tfprune.kernel_layout import KernelLayout
        >>> layers = [WeightInfo(f"w{n}", KernelLayout.default((n, n))) for n in (4, 64)]
        >>> large_only = PerWeight(lambda weight: 0.9 if weight.layout.size > 1000 else 0.0)
        >>> large_only.resolved(layers)
        PerLayer(layers=(('w4', 0.0), ('w64', 0.9)), default=None)
    """

    function: Callable[[WeightInfo], float]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InvalidTypeError(f"`function` must be callable. Received: {self.function!r}")

    def sparsities(
        self, sparsity: float, weights: Sequence[WeightInfo], final_sparsity: float
    ) -> list[float]:
        """Return what the function says, scaled by how far the schedule is."""
        return self.resolved(weights).sparsities(sparsity, weights, final_sparsity)

    def resolved(self, weights: Sequence[WeightInfo]) -> Allocation:
        """Return the function's results by weight path."""
        return PerLayer({weight.path: self.function(weight) for weight in weights})

    def get_config(self) -> dict[str, Any]:
        """Refuse: a function cannot be saved.

        Raises:
            InvalidTypeError: always.
        """
        raise InvalidTypeError(
            "An allocation by a function cannot be saved: call `resolved(weights)` first, or pass "
            "a dict of sparsities by layer."
        )

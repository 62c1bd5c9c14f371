"""Single weights, but only where XNNPACK, the CPU engine of phones and browsers, skips zeros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tfprune.errors import InvalidTypeError
from tfprune.patterns.base import Pattern
from tfprune.patterns.unstructured import Unstructured

if TYPE_CHECKING:
    from tfprune.prunable import Candidate
    from tfprune.sparse_part import SparsePart


@dataclass(frozen=True)
class Xnnpack(Pattern):
    """Single weights of the kernels that run sparse in XNNPACK once the model is exported.

    Those are 1x1 convolutions between a 3x3 stride-2 stem and a pooling over space, as in the
    mobile models of `keras.applications`; all others stay dense, and `tfprune.plan` tells why. The
    exporter itself is asked, on a copy of the model, which takes some seconds. More than two
    thirds of the weights of all those kernels have to be zero: less is warned of.

    Args:
        input_shape: size of the input for a model that leaves it open, without the batch axis,
            such as (224, 224, 3).

    Source: Elsen et al. (2020), "Fast Sparse ConvNets".

    Example:
        >>> Xnnpack()
        Xnnpack(input_shape=None)
    """

    input_shape: tuple[int, ...] | None = None

    whole_model: ClassVar[bool] = True
    unit_scores = Unstructured.unit_scores
    expand = Unstructured.expand
    rank = Unstructured.rank

    def __post_init__(self) -> None:
        if self.input_shape is None:
            return
        try:
            shape = tuple(int(size) for size in self.input_shape)
        except (TypeError, ValueError):
            raise InvalidTypeError(
                "`input_shape` is a tuple of sizes without the batch, such as (224, 224, 3). "
                f"Received: {self.input_shape!r}"
            ) from None
        object.__setattr__(self, "input_shape", shape)

    def survey(self, model: Any, candidates: Sequence[Candidate]) -> dict[int, SparsePart | str]:
        """Return the part of the model in which each weight runs sparse, or why it runs dense.

        Raises:
            UnsupportedModelError: nothing in the model runs sparse, or it cannot be exported.
            InvalidTypeError: it is a layer, not a model.
        """
        # The one import that runs upwards: only the exporter knows what becomes of a kernel.
        from tfprune.export.sparse_runtime.kernels import sparse_kernels

        return sparse_kernels(model, candidates, self.input_shape)

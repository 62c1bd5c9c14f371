"""Group lasso: a penalty that drives whole filters, units or channels to zero together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.errors import InvalidArgumentError
from tfprune.kernel_layout import KernelLayout
from tfprune.regularization.arguments import check_number


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class GroupLasso(keras.regularizers.Regularizer):
    """Add strength * sum over groups of sqrt(group size) * ||w_group||_2 to the loss.

    Not squared, so the pull on a group does not fade as the group shrinks: groups that the loss
    does not need go to zero as a whole, where L2 makes all weights small. At zero itself, where the
    norm has no gradient, the gradient is 0.

    Args:
        strength: the factor, at least 0.
        groups: `"outputs"` (filters, units), `"inputs"` (input channels), or the axis or axes of
            the weight that count the groups, such as `3` or `(0, 1)`. As an argument of a layer,
            the names mean the last and the last but one axis; `tfprune.regularization.regularize`
            knows where they lie in transposed convolutions and EinsumDense.

    Raises:
        InvalidArgumentError: for a negative strength or unknown groups.
        InvalidTypeError: for a strength that is not a number.

    Source: Yuan & Lin (2006), "Model Selection and Estimation in Regression with Grouped
    Variables"; Wen et al. (2016), "Learning Structured Sparsity in Deep Neural Networks".

    Example:
        >>> import numpy as np
        >>> kernel = np.array([[3.0, 0.0], [4.0, 0.0]])  # two inputs, two outputs
        >>> round(float(GroupLasso(0.1)(kernel)), 4)  # 0.1 * sqrt(2) * (5 + 0)
        0.7071
        >>> round(float(GroupLasso(0.1, groups="inputs")(kernel)), 4)  # 0.1 * sqrt(2) * (3 + 4)
        0.9899
    """

    strength: float
    groups: str | int | tuple[int, ...] = "outputs"

    def __post_init__(self) -> None:
        check_number("strength", self.strength)
        # A frozen dataclass is filled in through object.__setattr__.
        object.__setattr__(self, "strength", float(self.strength))
        object.__setattr__(self, "groups", _checked_groups(self.groups))

    def __call__(self, x: Any) -> Any:
        """Return the penalty of a weight, a scalar tensor."""
        shape = tuple(x.shape)
        axes = self.for_layout(KernelLayout.default(shape)).groups
        axes = {axis % len(shape) for axis in axes}
        within = tuple(axis for axis in range(len(shape)) if axis not in axes)
        # Sums of 16-bit squares would overflow, and lose the small ones.
        wide = keras.ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        squares = keras.ops.sum(keras.ops.square(wide), axis=within)
        # The root of 0 has an infinite gradient, which `where` alone would turn into NaN.
        is_zero = squares == 0
        roots = keras.ops.sqrt(keras.ops.where(is_zero, keras.ops.ones_like(squares), squares))
        norms = keras.ops.where(is_zero, keras.ops.zeros_like(squares), roots)
        size = math.prod(shape[axis] for axis in within)
        return self.strength * math.sqrt(size) * keras.ops.sum(norms)

    def for_layout(self, layout: KernelLayout) -> GroupLasso:
        """Return the same penalty with the groups' axes as numbers, as they lie in a weight.

        Raises:
            InvalidArgumentError: if the weight has no such axes.
        """
        named = {"outputs": layout.output_axes, "inputs": layout.input_axes}
        axes = named.get(self.groups, self.groups)
        rank = len(layout.shape)
        if not axes or not all(-rank <= axis < rank for axis in axes):
            raise InvalidArgumentError(
                f"A weight of shape {layout.shape} has no groups {self.groups!r}: leave it out "
                "with `exclude`, or name axes that it has."
            )
        return GroupLasso(self.strength, axes)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        groups = self.groups
        return {
            "strength": self.strength,
            "groups": groups if isinstance(groups, str) else list(groups),
        }


def _checked_groups(groups: Any) -> str | tuple[int, ...]:
    if groups in ("outputs", "inputs"):
        return groups
    axes = (groups,) if isinstance(groups, int) else groups
    if isinstance(axes, (list, tuple)) and axes and all(type(axis) is int for axis in axes):
        return tuple(axes)
    raise InvalidArgumentError(
        "`groups` is 'outputs', 'inputs', or the axes that count the groups, such as 3 or (0, 1). "
        f"Received: {groups!r}"
    )

"""Sparse learning over coupled channels: what matters least is made small as a whole, then cut.

    loss + 1/2 * strength * sum over units k of g_k * ||w_k||^2,
    g_k = 2^(sharpness * (max I - I_k) / (max I - min I))

A unit's weights w_k are all that goes with it in `tfprune.shrink`, where it is made and where it is
read; I_k is the unit's importance now, its squared norm, and max and min are over its group. So the
least unit of a group is pulled 2^sharpness times as hard as the best one, in every layer at once.

Source: Fang et al. (2023), "DepGraph: Towards Any Structural Pruning", section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from tfprune.criteria import L2
from tfprune.regularization.arguments import check_number
from tfprune.selection import Selector
from tfprune.structured.graph import ChannelGraph
from tfprune.structured.importance import score_units
from tfprune.structured.protection import select_groups


class UnitPenalty(keras.regularizers.Regularizer):
    """The penalty on one weight, beside the weight's own regularizer.

    Args:
        factors: by axis a vector variable, one factor per slice along it.
        own: the regularizer that the weight had before, or `None`.
    """

    def __init__(self, factors: dict[int, keras.Variable], own: Any) -> None:
        self.factors = factors
        self.own = own

    def __call__(self, x: Any) -> Any:
        """Return both penalties together."""
        penalty = 0.0
        for axis, factor in self.factors.items():
            others = tuple(a for a in range(len(x.shape)) if a != axis)
            squares = keras.ops.sum(keras.ops.square(keras.ops.cast(x, factor.dtype)), others)
            penalty += 0.5 * keras.ops.sum(factor * squares)
        if self.own is None:
            return penalty
        return penalty + keras.ops.cast(self.own(x), penalty.dtype)


class GroupSparsity(keras.callbacks.Callback):
    """Pulls the channels that matter least to zero, in all coupled layers, while a model trains.

    Pass it to `fit`; then `tfprune.shrink` cuts what is small already. The pull is set anew at the
    start of each epoch. Nothing of it is saved with the model.

    Args:
        strength: the pull on the most important unit of each group, like a weight decay.
        sharpness: how much harder the least important one is pulled, as a power of 2.
        include: as in `tfprune.shrink`.
        exclude: as in `tfprune.shrink`.
        layer_norm: as in `tfprune.shrink`.

    Raises:
        InvalidArgumentError: for a bad value.
        InvalidTypeError: for a value of the wrong type.

    Example:
        >>> import tfprune
        >>> layers = [keras.layers.Dense(16, "relu"), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> model.compile("adam", "mse")
        >>> x, y = np.ones((32, 4)), np.ones((32, 2))
        >>> history = model.fit(x, y, epochs=2, callbacks=[GroupSparsity(1e-3)], verbose=0)
        >>> small = tfprune.shrink(model, 0.5)
    """

    def __init__(
        self,
        strength: float = 1e-4,
        sharpness: float = 4.0,
        *,
        include: Selector | Iterable[Selector] | None = None,
        exclude: Selector | Iterable[Selector] | None = None,
        layer_norm: str = "freeze",
    ) -> None:
        super().__init__()
        check_number("strength", strength)
        check_number("sharpness", sharpness)
        self._strength, self._sharpness = float(strength), float(sharpness)
        self._selection, self._layer_norm = (include, exclude), layer_norm
        self._penalized: list[tuple[keras.Variable, UnitPenalty, dict[int, np.ndarray]]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Put a penalty on every weight of the groups, and have the training step traced again."""
        self._graph = ChannelGraph(self.model, layer_norm=self._layer_norm)
        self._groups = select_groups(self._graph, *self._selection)
        with self.model.distribute_strategy.scope():
            self._penalized = [*self._attach()]
        self.model.make_train_function(force=True)
        self.model.test_function = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the pull on each unit by what it matters now."""
        factors = self.factors()
        for _, penalty, axes in self._penalized:
            for axis, units in axes.items():
                penalty.factors[axis].assign(factors[units])

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Give the weights their own regularizers back."""
        for variable, penalty, _ in self._penalized:
            variable.regularizer = penalty.own
        self.model.train_function = self.model.test_function = None

    def factors(self) -> np.ndarray:
        """Return the factor of each unit of the graph, 0 where nothing is pulled."""
        scores = score_units(self._graph, self._groups, L2())
        factors = np.zeros(self._graph.size, np.float32)
        for group in self._groups:
            own = scores[group.units]
            spread = max(own.max() - own.min(), np.finfo(float).tiny)
            powers = self._sharpness * (own.max() - own) / spread
            factors[group.units] = self._strength * 2.0**powers
        return factors

    def _attach(self) -> Iterable[tuple[keras.Variable, UnitPenalty, dict[int, np.ndarray]]]:
        wanted = np.zeros(self._graph.size, bool)
        for group in self._groups:
            wanted[group.units] = True
        by_variable: dict[int, list[Any]] = {}
        for axis in self._graph.axes:
            is_kernel = len(axis.variable.shape) > 1 and axis.variable.trainable
            if is_kernel and wanted[axis.units].any():
                by_variable.setdefault(id(axis.variable), []).append(axis)
        for axes in by_variable.values():
            variable = axes[0].variable
            own = variable.regularizer
            # One that is left of a run that ended in an exception is replaced.
            own = own.own if isinstance(own, UnitPenalty) else own
            factors = {
                axis.axis: keras.Variable(
                    np.zeros(len(axis.units), np.float32),
                    trainable=False,
                    aggregation="only_first_replica",
                    name="unit_factors",
                )
                for axis in axes
            }
            variable.regularizer = penalty = UnitPenalty(factors, own)
            yield variable, penalty, {axis.axis: axis.units for axis in axes}

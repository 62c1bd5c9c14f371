"""Evidence from what layers see and put out: norms of inputs, statistics of units.

Nothing is kept of a batch but one float64 number per input or unit, so memory does not grow with
the data.

The *activation* of a unit is its value after the nonlinearity. Where a layer has none of its own,
and the graph goes on with normalization layers and an activation that read nothing else, it is the
value after these (Conv2D, BatchNormalization, ReLU); elsewhere it is the layer's output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.evidence.broadcasting import along_inputs, along_outputs
from tfprune.evidence.layer_calls import observe
from tfprune.evidence.layer_inputs import find_input_view, output_matrix, unsupported_inputs
from tfprune.evidence.probe import Probe
from tfprune.evidence.successors import NORMALIZATIONS, find_successors, is_activation
from tfprune.pruned_weight import PrunedWeight

# So many activations at a time are squared in float64.
_PART = 1 << 20


def collect_input_norm(probe: Probe) -> dict[str, list[np.ndarray]]:
    """Gather "input_norm": the L2 norm of what each weight is multiplied with, over all data.

    That is, over all examples and, for a convolution, all positions. The arrays have the weight's
    input axes and taps.

    Raises:
        UnsupportedModelError: if it is not known what some weights are multiplied with.

    Example:
        >>> from tfprune.prunable import find_candidates
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, use_bias=False)])
        >>> found = find_candidates(model)
        >>> weights = [PrunedWeight(c.variable, c.layout, owners=c.owners) for c in found]
        >>> probe = Probe(model, weights, np.array([[3.0, 0.0], [4.0, 2.0]]))
        >>> collect_input_norm(probe)["input_norm"][0].tolist()
        [[5.0], [2.0]]
    """
    views = [find_input_view(weight) for weight in probe.weights]
    unseen = [w for w, view in zip(probe.weights, views, strict=True) if view is None]
    if unseen:
        raise unsupported_inputs(unseen)
    columns: list[tuple[int, ...]] = [()] * len(views)
    sums: list[Any] = [0.0] * len(views)

    def add(index: int, inputs: Any, outputs: Any) -> None:
        view = views[index](inputs)
        columns[index] = view.columns
        rows = tuple(range(view.array.ndim - len(view.columns) - 1))
        # One example at a time: the patches of a whole batch would fill the memory.
        for example in view.array:
            sums[index] += np.square(example, dtype=np.float64).sum(axis=rows)

    observe(probe, add)
    norms = map(np.sqrt, sums)
    return {"input_norm": list(map(along_inputs, probe.weights, norms, columns))}


def collect_activations(probe: Probe) -> dict[str, list[np.ndarray]]:
    """Gather statistics of the units' activations over all examples and positions.

    "activation_mean", "activation_max" and "activation_min" are those of the absolute value: a
    unit of tanh that is always at -1 is as strong as one at 1. "activation_variance" is that of
    the value itself, "activation_zeros" the fraction of exact zeros (APoZ). The arrays have the
    weight's output axes; the gates of a recurrent cell share the statistics of its output.

    Raises:
        UnsupportedModelError: if a layer has other units than its weight has outputs.
    """
    finish = [_find_activation(weight) for weight in probe.weights]
    statistics = [_Statistics() for _ in probe.weights]

    def add(index: int, inputs: Any, outputs: Any) -> None:
        statistics[index].add(output_matrix(probe.weights[index], finish[index](outputs)))

    observe(probe, add)
    results = [statistic.results() for statistic in statistics]
    return {
        name: [
            along_outputs(weight, result[name])
            for weight, result in zip(probe.weights, results, strict=True)
        ]
        for name in (
            "activation_mean",
            "activation_max",
            "activation_min",
            "activation_variance",
            "activation_zeros",
        )
    }


def _find_activation(weight: PrunedWeight) -> Callable[[Any], Any]:
    """Return the function that leads from a layer's output to the activation of its units."""
    chain = []
    if getattr(weight.layer, "activation", None) in (None, keras.activations.linear):
        for operation in find_successors(weight.owners):
            if isinstance(operation, NORMALIZATIONS):
                chain.append(operation)
            else:
                chain += [operation] if is_activation(operation) else []
                break

    # Computed anew from the layer's output: the same ReLU layer may follow other layers as well.
    def finish(outputs: Any) -> Any:
        for operation in chain:
            outputs = operation(outputs)
        return outputs

    return finish


@dataclass
class _Statistics:
    """Running sums over rows, one number per unit."""

    count: int = 0
    total: Any = 0.0
    magnitudes: Any = 0.0
    squares: Any = 0.0
    zeros: Any = 0
    highest: Any = -np.inf
    lowest: Any = np.inf

    def add(self, rows: np.ndarray) -> None:
        step = max(_PART // rows.shape[1], 1)
        for start in range(0, len(rows), step):
            self._add_part(rows[start : start + step])

    def _add_part(self, rows: np.ndarray) -> None:
        magnitudes = np.abs(rows)
        self.count += len(rows)
        self.total += rows.sum(axis=0, dtype=np.float64)
        self.magnitudes += magnitudes.sum(axis=0, dtype=np.float64)
        # Sums of squares are exact enough: what 64 bits lose, 32-bit activations never had.
        self.squares += np.square(magnitudes, dtype=np.float64).sum(axis=0)
        self.zeros += len(rows) - np.count_nonzero(rows, axis=0)
        self.highest = np.maximum(self.highest, magnitudes.max(axis=0))
        self.lowest = np.minimum(self.lowest, magnitudes.min(axis=0))

    def results(self) -> dict[str, np.ndarray]:
        mean = self.total / self.count
        return {
            "activation_mean": self.magnitudes / self.count,
            "activation_max": self.highest,
            "activation_min": self.lowest,
            "activation_variance": np.maximum(self.squares / self.count - mean**2, 0),
            "activation_zeros": self.zeros / self.count,
        }

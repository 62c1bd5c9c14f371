"""Evidence from normalization layers: how much each one scales the units of the layer before it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfprune.errors import UnsupportedModelError
from tfprune.evidence.broadcasting import along_outputs
from tfprune.evidence.probe import Probe
from tfprune.evidence.successors import NORMALIZATIONS, find_successors, is_activation
from tfprune.pruned_weight import PrunedWeight


def collect_norm_scale(probe: Probe) -> dict[str, list[np.ndarray]]:
    """Gather "norm_scale": |gamma| of the normalization layer that follows each weight's layer.

    That is a BatchNormalization, a LayerNormalization or a GroupNormalization over the channels,
    directly after the layer or after its activation, in the graph of a Functional or Sequential
    model. The arrays have the weight's output axes. No data is read.

    Raises:
        UnsupportedModelError: if no such layer with a gamma follows some of the layers.

    Example:
        >>> from tfprune.prunable import find_candidates
        >>> layers = [keras.layers.Dense(2), keras.layers.BatchNormalization()]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> _ = layers[1].gamma.assign([0.5, -2.0])
        >>> kernel = find_candidates(model)[0]
        >>> weight = PrunedWeight(kernel.variable, kernel.layout, owners=kernel.owners)
        >>> collect_norm_scale(Probe(model, [weight]))["norm_scale"][0].tolist()
        [[0.5, 2.0]]
    """
    gammas = [_find_gamma(weight) for weight in probe.weights]
    without = [
        f"{weight.path} ({type(weight.layer).__name__})"
        for weight, gamma in zip(probe.weights, gammas, strict=True)
        if gamma is None
    ]
    if without:
        raise UnsupportedModelError(
            "This criterion reads the scale (gamma) of the BatchNormalization, LayerNormalization "
            "or GroupNormalization over the channels that follows a layer in a Functional or "
            f"Sequential model. None follows these: {', '.join(without)}. Leave them out with "
            "`exclude=`, or choose another criterion."
        )
    return {
        "norm_scale": [
            along_outputs(weight, np.abs(keras.ops.convert_to_numpy(gamma)))
            for weight, gamma in zip(probe.weights, gammas, strict=True)
        ]
    }


def _find_gamma(weight: PrunedWeight) -> Any:
    for operation in find_successors(weight.owners):
        if isinstance(operation, NORMALIZATIONS):
            gamma = operation.gamma
            # A LayerNormalization over several axes scales positions, not units.
            return gamma if gamma is not None and len(gamma.shape) == 1 else None
        if not is_activation(operation):
            break
    return None

"""Which collector gathers which evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tfprune.errors import InvalidArgumentError
from tfprune.evidence.activations import collect_activations, collect_input_norm
from tfprune.evidence.fisher import collect_block_fisher
from tfprune.evidence.gradients import (
    collect_gradient,
    collect_hessian_gradient,
    collect_squared_batch_gradient,
    collect_squared_gradient,
)
from tfprune.evidence.norm_scale import collect_norm_scale
from tfprune.evidence.probe import Probe

Collector = Callable[[Probe], dict[str, list[np.ndarray]]]

COLLECTORS: dict[str, Collector] = {
    "activation_max": collect_activations,
    "activation_mean": collect_activations,
    "activation_min": collect_activations,
    "activation_variance": collect_activations,
    "activation_zeros": collect_activations,
    "block_fisher_inverse_diagonal": collect_block_fisher,
    "gradient": collect_gradient,
    "hessian_gradient": collect_hessian_gradient,
    "input_norm": collect_input_norm,
    "norm_scale": collect_norm_scale,
    "squared_batch_gradient": collect_squared_batch_gradient,
    "squared_gradient": collect_squared_gradient,
}
"""Collector by name of evidence. One collector may gather several kinds in one pass over the data:
it returns, for each name, one array per weight of the probe."""

WITHOUT_DATA = ("norm_scale",)
"""Names of the evidence that lies in the model alone."""


def check_data(names: Iterable[str], data: Any) -> None:
    """Refuse to go without data where the named evidence needs some.

    Args:
        names: keys of `COLLECTORS`.
        data: what the user gave, or `None`.

    Raises:
        InvalidArgumentError: if data is missing.
    """
    needing = [name for name in names if name not in WITHOUT_DATA]
    if needing and data is None:
        raise InvalidArgumentError(
            f"This criterion looks at data (for {', '.join(needing)}): pass `data=(x, y)`, a "
            "tf.data.Dataset or a keras.utils.PyDataset of batches."
        )


def gather(names: Iterable[str], probe: Probe) -> list[dict[str, np.ndarray]]:
    """Gather the named evidence, each collector run once.

    Args:
        names: keys of `COLLECTORS`.
        probe: the model and its data.

    Returns:
        One dict of float arrays by name for each weight of the probe.
    """
    gathered: list[dict[str, np.ndarray]] = [{} for _ in probe.weights]
    wanted = set(names)
    for collect in dict.fromkeys(COLLECTORS[name] for name in names):
        for name, arrays in collect(probe).items():
            if name not in wanted:
                continue
            for evidence, array in zip(gathered, arrays, strict=True):
                evidence[name] = array
    return gathered

"""Recalibrate batch normalization: new moving statistics, from data, for a model that was cut.

What the kept channels add up to is another number than before the cut, and the statistics are still
those of before. No weight is trained.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidArgumentError
from tfprune.evidence import Probe
from tfprune.structured.walk import walk


def recalibrate_batch_norm(model: keras.Model, data: Any, *, verbose: bool = False) -> None:
    """Replace the moving statistics of a model by the averages over some batches, in place.

    Batch normalization runs as in training, and everything else, dropout too, as at inference.
    Frozen layers keep theirs.

    Args:
        model: a built Functional or Sequential model.
        data: arrays `x` or `(x, y)`, a `tf.data.Dataset` or a `keras.utils.PyDataset` of batches;
            at most 32 batches are read, of 32 examples where arrays are given.
        verbose: whether a progress bar is shown.

    Raises:
        InvalidArgumentError: if there is no data.

    Example:
        >>> layers = [keras.layers.Dense(2), keras.layers.BatchNormalization(name="norm")]
        >>> model = keras.Sequential([keras.Input((1,)), *layers])
        >>> model.layers[0].set_weights([np.array([[1.0, 2.0]]), np.zeros(2)])
        >>> recalibrate_batch_norm(model, np.array([[3.0], [5.0]]))
        >>> model.get_layer("norm").moving_mean.numpy().tolist()
        [4.0, 8.0]
    """
    if data is None:
        raise InvalidArgumentError("Recalibration needs `data`, some batches of typical inputs.")
    walked = walk(model)
    norms = {
        id(call.operation): call.operation
        for call in walked.calls
        if isinstance(call.operation, keras.layers.BatchNormalization) and call.operation.trainable
    }
    if not norms:
        return
    sums: dict[int, list[Any]] = {key: [0.0, 0.0, 0] for key in norms}
    for x, _, _ in Probe(model, [], data, verbose=verbose).batches():
        _add_batch(model, walked, norms, sums, x)
    for key, norm in norms.items():
        mean, variance, count = sums[key]
        norm.moving_mean.assign(mean / count)
        norm.moving_variance.assign(variance / count)


def _add_batch(
    model: keras.Model, walked: Any, norms: dict[int, Any], sums: dict[int, list[Any]], x: Any
) -> None:
    values = dict(zip(walked.inputs, keras.tree.flatten(x), strict=True))
    # The layers' own update, of their own momentum, is thrown away.
    with keras.StatelessScope():
        for call in walked.calls:
            given = [values[number] for number in call.inputs]
            if id(call.operation) in norms:
                outputs = keras.tree.flatten(call.operation(given[0], training=True))
                moments = _moments(call.operation, given[0])
                for place, moment in enumerate(moments):
                    sums[id(call.operation)][place] += moment
                sums[id(call.operation)][2] += 1
            else:
                outputs = call.run(given)
            values.update(zip(call.outputs, outputs, strict=True))


def _moments(norm: keras.layers.BatchNormalization, inputs: Any) -> tuple[np.ndarray, np.ndarray]:
    array = keras.ops.convert_to_numpy(inputs).astype(np.float64)
    axes = tuple(axis for axis in range(array.ndim) if axis != norm.axis % array.ndim)
    return array.mean(axis=axes), array.var(axis=axes)

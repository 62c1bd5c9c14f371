"""`shrink`: a smaller plain model, with the channels that matter least really gone."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidArgumentError
from tfprune.selection import Selector
from tfprune.structured.cut_planner import CutPlanner, Limits, is_shown
from tfprune.structured.history import ShrinkHistory, remember
from tfprune.structured.rebuild import rebuild_narrow
from tfprune.structured.recalibration import recalibrate_batch_norm
from tfprune.targets import Target

_LOGGER = logging.getLogger(__name__)

_ROUNDS = 4
"""How often the estimate is corrected by a measurement."""


def shrink(
    model: keras.Model,
    target: float | Target,
    criterion: Any = "magnitude",
    *,
    data: Any = None,
    loss: Any = None,
    scope: str = "local",
    normalize: str | None = "mean",
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
    min_channels: int = 1,
    max_ratio: float = 1.0,
    round_to: int = 1,
    layer_norm: str = "freeze",
    recalibrate: bool = False,
    verbose: bool | str = "auto",
) -> keras.Model:
    """Return a smaller copy of the model, without the channels, units and heads that matter least.

    The result is a plain Keras model that is faster on every runtime. It computes exactly what the
    given one would with the removed channels at zero where they are read; train it on to recover.

    Args:
        model: a built Functional or Sequential model; it is not changed.
        target: the fraction of channels to keep, or one of `tfprune.targets`.
        criterion: as in `tfprune.prune_once`; the scores are summed over all weights that go with
            a channel.
        data: arrays `x` or `(x, y)`, a `tf.data.Dataset` or a `keras.utils.PyDataset` of batches,
            for criteria that look at data and for recalibration; at most 32 batches are read.
        loss: what `compile` takes as `loss`, for criteria that need one; by default what the model
            is compiled with.
        scope: `"local"` takes the same share of every group of channels; `"global"` compares
            channels of different groups; `"isomorphic"` compares them within groups that are built
            alike, and takes the same share of each such set.
        normalize: how scores of different groups become comparable: `"mean"`, `"max"`, `"sum"`,
            `"lamp"`, or `None` to leave them as they are.
        include: cut only the channels that these layers make: a layer's name or path, an
            `re.Pattern` that searches the path, a layer class, or a function of the layer.
        exclude: leave alone the channels that these layers make.
        min_channels: so many channels stay in every layer, or all where there are fewer.
        max_ratio: the largest fraction of a group that may go.
        round_to: widths become multiples of this number where they are cut at all, to the nearest
            that is possible.
        layer_norm: `"allow"` also cuts channels that a LayerNormalization computes over, whose
            statistics then change; see `tfprune.structured.ChannelGraph`.
        recalibrate: whether batch normalization gets new statistics from `data`.
        verbose: whether a progress bar is shown while data are read; by default on a terminal.

    Returns:
        A new, uncompiled model. `tfprune.structured.history_of` tells what was cut.

    Raises:
        InvalidArgumentError: for a bad value, selectors that match nothing, a target out of reach,
            or missing data; nothing is changed then.
        InvalidTypeError: for a value of the wrong type.
        UnsupportedModelError: for a tf_keras, unbuilt, subclassed or pruned model.

    Warns:
        UserWarning: if the result is more than 1 % off the target.

    Example:
        >>> layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
        >>> model = keras.Sequential([keras.Input((8,)), *layers])
        >>> shrink(model, 0.5).count_params(), model.count_params()
        (618, 1226)
    """
    if recalibrate and data is None:
        raise InvalidArgumentError("`recalibrate=True` needs `data`.")
    planner = CutPlanner(
        model,
        target,
        criterion,
        data=data,
        loss=loss,
        limits=Limits(scope, normalize, min_channels, max_ratio, round_to),
        include=include,
        exclude=exclude,
        layer_norm=layer_norm,
        verbose=is_shown(verbose),
    )
    small, dead = _reach(planner)
    remember(small, ShrinkHistory.of(planner.graph, dead), model)
    if recalibrate:
        recalibrate_batch_norm(small, data, verbose=is_shown(verbose))
    return small


def _reach(planner: CutPlanner) -> tuple[keras.Model, np.ndarray]:
    """Build the model whose measure is closest to the target."""
    meter, choice = planner.meter, planner.choose()
    best: tuple[float, keras.Model, np.ndarray] | None = None
    offset, tried = 0.0, set()
    for _ in range(_ROUNDS):
        dead = choice.cut(planner.wanted - offset, planner.allowed)
        if dead.tobytes() in tried:
            break
        tried.add(dead.tobytes())
        small = rebuild_narrow(planner.graph, dead)
        reached = meter.measure(small, dead)
        _LOGGER.info("%s: %s of %s, %s wanted.", meter.unit, reached, meter.total, planner.wanted)
        if best is None or abs(reached - planner.wanted) < abs(best[0] - planner.wanted):
            best = reached, small, dead
        if abs(reached - planner.wanted) <= planner.allowed:
            break
        offset = reached - meter.estimate(dead)
    reached, small, dead = best
    planner.report(reached, stacklevel=4)
    return small, dead

"""`shrink`: a smaller plain model, with the channels that matter least really gone."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.selection import Selector, parse_selectors
from tfprune.structured.graph import ChannelGraph
from tfprune.structured.groups import ChannelGroup
from tfprune.structured.history import ShrinkHistory, remember
from tfprune.structured.importance import check_criterion, score_units
from tfprune.structured.meters import Meter, meter_for
from tfprune.structured.ranking import (
    NORMALIZATIONS,
    SCOPES,
    RankedGroup,
    Rounding,
    rank,
    within_limits,
)
from tfprune.structured.rebuild import rebuild_narrow
from tfprune.structured.recalibration import recalibrate_batch_norm
from tfprune.targets import Channels, Target

_LOGGER = logging.getLogger(__name__)

_TOLERANCE = 0.01
"""A target is reached if the result is this close to it."""

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
    target = _checked_target(target)
    criterion = check_criterion(criterion, data)
    _check_choice("scope", scope, SCOPES)
    _check_choice("normalize", normalize, NORMALIZATIONS)
    _check_number("min_channels", min_channels)
    _check_number("round_to", round_to)
    if not 0 < max_ratio <= 1:
        raise InvalidArgumentError(f"`max_ratio` must be in (0, 1]. Received: {max_ratio!r}")
    if recalibrate and data is None:
        raise InvalidArgumentError("`recalibrate=True` needs `data`.")
    shown = sys.stdout.isatty() if verbose == "auto" else bool(verbose)
    graph = ChannelGraph(model, layer_norm=layer_norm)
    groups = _select_groups(graph, include, exclude)
    scores = score_units(graph, groups, criterion, data=data, loss=loss, verbose=shown)
    ranked = [
        RankedGroup(group.name, group.units, scores[group.units], group.topology)
        for group in groups
    ]
    order = rank(ranked, scope, normalize)
    sequence = within_limits(
        order, ranked, graph.bound_axes(), min_channels=min_channels, max_ratio=max_ratio
    )
    makers = [axis.units for group in groups for axis in group.makers]
    rounding = Rounding(sequence, ranked, makers, round_to)

    def cut(count: int) -> np.ndarray:
        places = rounding.apply(count)
        dead = np.zeros(graph.book.labels.count, bool)
        dead[sequence[:count] if places is None else sequence[places]] = True
        return dead

    meter = meter_for(target, graph, order)
    small, dead = _reach(graph, meter, target, cut, len(sequence))
    remember(small, ShrinkHistory.of(graph, dead), model)
    if recalibrate:
        recalibrate_batch_norm(small, data, verbose=shown)
    return small


def _reach(
    graph: ChannelGraph,
    meter: Meter,
    target: Target,
    cut: Callable[[int], np.ndarray],
    longest: int,
) -> tuple[keras.Model, np.ndarray]:
    """Build the model whose measure is closest to a target."""
    wanted = target.wanted(meter.total)
    if wanted >= meter.total:
        raise InvalidArgumentError(
            f"The model has {meter.total:,.0f} {meter.unit} already, no more than the "
            f"{wanted:,.0f} that are to remain."
        )
    least = meter.estimate(cut(longest))
    allowed = max(_TOLERANCE * wanted, meter.grain)
    if least > wanted + allowed:
        raise InvalidArgumentError(
            f"The target is out of reach: of {meter.total:,.0f} {meter.unit}, {wanted:,.0f} are to "
            f"remain, and within the limits set at least {least:,.0f} do. Ask for less, protect "
            "fewer layers, or let `max_ratio` and `min_channels` take more."
        )
    best: tuple[float, keras.Model, np.ndarray] | None = None
    offset, tried = 0.0, set()
    for _ in range(_ROUNDS):
        aim = wanted - offset
        count = _closest(lambda n, aim=aim: meter.estimate(cut(n)) - aim, longest)
        if count in tried:
            break
        tried.add(count)
        dead = cut(count)
        small = rebuild_narrow(graph, dead)
        reached = meter.measure(small, dead)
        _LOGGER.info("%s: %s of %s, %s wanted.", meter.unit, reached, meter.total, wanted)
        if best is None or abs(reached - wanted) < abs(best[0] - wanted):
            best = reached, small, dead
        if abs(reached - wanted) <= allowed:
            break
        offset = reached - meter.estimate(dead)
    reached, small, dead = best
    if abs(reached - wanted) > allowed:
        warnings.warn(
            f"{reached:,.0f} {meter.unit} remain, and {wanted:,.0f} were asked for: whole channels "
            "and the limits set allow nothing closer.",
            stacklevel=3,
        )
    return small, dead


def _closest(excess: Callable[[int], float], longest: int) -> int:
    """Return the number of units to cut that leaves the least excess, or lack."""
    low, high = 0, longest
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if excess(middle) <= 0 else (middle + 1, high)
    return min((low, max(low - 1, 0)), key=lambda count: abs(excess(count)))


def _select_groups(
    graph: ChannelGraph,
    include: Selector | Iterable[Selector] | None,
    exclude: Selector | Iterable[Selector] | None,
) -> list[ChannelGroup]:
    """Return the groups that may be cut."""
    included = parse_selectors("include", include)
    excluded = parse_selectors("exclude", exclude)
    if not graph.groups:
        raise InvalidArgumentError(
            f"There are no channels to cut in {graph.model.name!r}: "
            + "; ".join(f"{f.channels} of {f.layer}: {f.reason}" for f in graph.frozen[:8])
        )
    layers = {call.path: call.operation for call in graph.walk.calls}
    makers = {axis.owner for axis in graph.axes if axis.makes}
    unmatched = [
        f"{name}={selector!r}"
        for name, selectors in (("include", included), ("exclude", excluded))
        for selector in selectors or ()
        if not any(_matches(selector, path, layers) for path in layers)
    ]
    if unmatched:
        raise InvalidArgumentError(
            f"Nothing in the model matches {', '.join(unmatched)}. A string is a layer's name or "
            "path; use re.compile(...) to search paths. Layers that make channels: "
            f"{', '.join(sorted(makers)[:12])}"
        )

    def is_matched(group: ChannelGroup, selectors: list[Selector]) -> bool:
        paths = {axis.owner for axis in group.makers}
        return any(_matches(selector, path, layers) for selector in selectors for path in paths)

    chosen = [
        group
        for group in graph.groups
        if (included is None or is_matched(group, included))
        and not is_matched(group, excluded or [])
    ]
    if not chosen:
        raise InvalidArgumentError(
            "Nothing is left to cut: `include` and `exclude` protect every group of channels. "
            f"Groups: {', '.join(group.name for group in graph.groups[:12])}"
        )
    return chosen


def _matches(selector: Selector, path: str, layers: dict[str, Any]) -> bool:
    if isinstance(selector, str):
        return selector == path or selector == path.rpartition("/")[2]
    if isinstance(selector, re.Pattern):
        return selector.search(path) is not None
    # A part of a layer - one direction of a Bidirectional - goes by the layer itself.
    layer = next((layers[p] for p in (path, path.rpartition("/")[0]) if p in layers), None)
    if isinstance(selector, type):
        return isinstance(layer, selector)
    return layer is not None and bool(selector(layer))


def _checked_target(target: Any) -> Target:
    if isinstance(target, Target):
        return target
    if isinstance(target, bool) or not isinstance(target, int | float | np.number):
        raise InvalidTypeError(
            "`target` must be the fraction of channels to keep, such as 0.5, or one of "
            f"tfprune.targets, such as Flops(0.5). Received: {target!r}"
        )
    return Channels(float(target))


def _check_choice(name: str, value: Any, known: Iterable[Any]) -> None:
    if value not in tuple(known):
        names = ", ".join(map(repr, known))
        raise InvalidArgumentError(f"`{name}` must be one of {names}. Received: {value!r}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"`{name}` must be a whole number. Received: {value!r}")
    if value < 1:
        raise InvalidArgumentError(f"`{name}` must be at least 1. Received: {value}")

"""Which groups of channels may be cut: what `include` and `exclude` say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tfprune.errors import InvalidArgumentError
from tfprune.selection import Selector, parse_selectors
from tfprune.structured.graph import ChannelGraph
from tfprune.structured.groups import ChannelGroup


def select_groups(
    graph: ChannelGraph,
    include: Selector | Iterable[Selector] | None,
    exclude: Selector | Iterable[Selector] | None,
) -> list[ChannelGroup]:
    """Return the groups that may be cut: by the layers that make their channels.

    Args:
        graph: the channels of a model.
        include: as in `tfprune.shrink`.
        exclude: as in `tfprune.shrink`.

    Raises:
        InvalidArgumentError: if a selector matches no layer, or no group is left.
        InvalidTypeError: for something that selects nothing.
    """
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
        return selector in (path, path.rpartition("/")[2])
    if isinstance(selector, re.Pattern):
        return selector.search(path) is not None
    # A part of a layer - one direction of a Bidirectional - goes by the layer itself.
    layer = next((layers[p] for p in (path, path.rpartition("/")[0]) if p in layers), None)
    if isinstance(selector, type):
        return isinstance(layer, selector)
    return layer is not None and bool(selector(layer))

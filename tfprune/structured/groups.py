"""Groups of channels, as they are shown and cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.structured.labels import Labels

_ALONE = "all of its channels go together, and some must stay"


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of one weight, and the unit of each slice along it.

    Args:
        owner: path of the layer.
        weight: name of the weight in the layer, such as `"query/kernel"`.
        variable: the weight.
        axis: the axis.
        units: one unit per slice.
        reads: whether the layer reads channels along it.
        makes: whether the layer makes channels along it.
    """

    owner: str
    weight: str
    variable: keras.Variable
    axis: int
    units: np.ndarray
    reads: bool
    makes: bool

    @property
    def name(self) -> str:
        """Where it is, such as `"conv1/kernel:3"`."""
        return f"{self.owner}/{self.weight}:{self.axis}"


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Units that are made by the same layers, and so compete with each other.

    Args:
        name: path of the first layer that makes them.
        units: the units, integer array; the numbers mean nothing outside of the graph.
        axes: every axis of a weight on which some of them lie, in model order.
    """

    name: str
    units: np.ndarray
    axes: tuple[Axis, ...]

    @property
    def makers(self) -> tuple[Axis, ...]:
        """The axes along which layers make these channels."""
        return tuple(axis for axis in self.axes if axis.makes)

    @property
    def channels(self) -> int:
        """How many channels its makers make, where one is not just a view of another's."""
        return max(self.width(axis) for axis in self.makers)

    def width(self, axis: Axis) -> int:
        """Return how many slices along an axis belong to this group."""
        return int(np.isin(axis.units, self.units).sum())

    @property
    def topology(self) -> tuple:
        """What groups that are built alike have in common, whatever their width."""
        return tuple(
            (axis.weight, len(axis.variable.shape), axis.axis, axis.reads, axis.makes)
            for axis in self.axes
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what is known of the group as plain values: causes, effects and widths."""
        others = [axis for axis in self.axes if not axis.makes]
        makers = _owners(self.makers)
        return {
            "name": self.name,
            "channels": self.channels,
            "units": len(self.units),
            "makers": makers,
            "follows": [o for o in _owners(a for a in others if not a.reads) if o not in makers],
            "reads": _owners(axis for axis in others if axis.reads),
        }

    def __str__(self) -> str:
        row = self.to_dict()
        reads = [f"{owner} (reads)" for owner in row["reads"]]
        effects = " => ".join([" + ".join(row["makers"]), *row["follows"], *reads])
        return f"{self.name}: {self.channels} channels in {len(self.units)} units\n  {effects}"


def count_parameters(group: ChannelGroup) -> int:
    """Return how many parameters lie on the slices of a group, those shared with others too."""
    touched: dict[int, np.ndarray] = {}
    for axis in group.axes:
        mask = touched.setdefault(id(axis.variable), np.zeros(axis.variable.shape, bool))
        mask[(slice(None),) * axis.axis + (np.isin(axis.units, group.units),)] = True
    return sum(int(mask.sum()) for mask in touched.values())


def _owners(axes: Iterable[Axis]) -> list[str]:
    return list(dict.fromkeys(axis.owner for axis in axes))


@dataclass(frozen=True)
class FrozenChannels:
    """Channels that a layer makes and that cannot go.

    Args:
        layer: path of the layer.
        channels: how many.
        reason: why.
    """

    layer: str
    channels: int
    reason: str

    def __str__(self) -> str:
        return f"frozen: {self.channels} of {self.layer} ({self.reason})"


def group_channels(
    axes: Sequence[Axis], labels: Labels
) -> tuple[tuple[ChannelGroup, ...], tuple[FrozenChannels, ...]]:
    """Sort units into groups, and list what is frozen.

    Args:
        axes: every axis that holds channels.
        labels: what is frozen.
    """
    together = Labels()
    together.new(labels.count)
    frozen: list[FrozenChannels] = []
    is_frozen = labels.is_frozen(np.arange(labels.count))
    made: dict[int, None] = {}
    for axis in axes:
        if not axis.makes:
            continue
        free = axis.units[~is_frozen[axis.units]]
        if len(free):
            together.unite(free, free[:1])
            made.update(dict.fromkeys(free.tolist()))
        if len(free) < len(axis.units):
            stuck = axis.units[is_frozen[axis.units]]
            reason = "; ".join(labels.reasons(stuck))
            frozen.append(FrozenChannels(axis.owner, len(stuck), reason))
    members: dict[int, list[int]] = {}
    roots = together.roots(np.array(list(made), np.int64)).tolist()
    for unit, root in zip(made, roots, strict=True):
        members.setdefault(root, []).append(unit)
    touched: dict[int, list[Axis]] = {root: [] for root in members}
    for axis in axes:
        free = axis.units[~is_frozen[axis.units]]
        for root in np.unique(together.roots(free)).tolist():
            if root in touched:
                touched[root].append(axis)
    groups = []
    for root, units in members.items():
        makers = [axis for axis in touched[root] if axis.makes]
        if len(units) == 1:
            frozen += [FrozenChannels(a.owner, len(a.units), _ALONE) for a in makers]
        else:
            name = makers[0].owner
            groups.append(ChannelGroup(name, np.array(units), tuple(touched[root])))
    return tuple(groups), tuple(dict.fromkeys(frozen))

"""`ShrinkHistory`: which channels went, so that it can be looked at, saved and done again."""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.errors import ArtifactError, InvalidArgumentError
from tfprune.structured.graph import LAYER_NORM_MODES, ChannelGraph
from tfprune.structured.rebuild import rebuild_narrow

_VERSION = 1

_HISTORIES: weakref.WeakKeyDictionary[keras.Model, ShrinkHistory] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class CutAxis:
    """One axis along which a layer makes channels.

    Args:
        name: where it is, such as `"conv1/kernel:3"`.
        size: how many channels it makes in the model before the cut.
        removed: the indices of those that went, in ascending order.
    """

    name: str
    size: int
    removed: tuple[int, ...] = ()


@dataclass(frozen=True)
class ShrinkHistory:
    """What was cut from a model, in terms of that model.

    `tfprune.structured.history_of(small)` returns it for a model that `tfprune.shrink` has made.

    Args:
        axes: every axis along which a layer makes channels, in model order.
        layer_norm: the mode of the `ChannelGraph`.

    Example:
        >>> import tfprune
        >>> layers = [keras.layers.Dense(4, name="a"), keras.layers.Dense(2, "relu", name="b")]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> model.set_weights([np.eye(3, 4), np.zeros(4), np.ones((4, 2)), np.zeros(2)])
        >>> history = history_of(tfprune.shrink(model, 0.75))
        >>> print(history)
        a/kernel:1: 4 -> 3 without 3
        >>> ShrinkHistory.from_dict(history.to_dict()) == history
        True
    """

    axes: tuple[CutAxis, ...]
    layer_norm: str = "freeze"

    @classmethod
    def of(cls, graph: ChannelGraph, dead: np.ndarray) -> ShrinkHistory:
        """Write down which units of a graph go; `dead` is a boolean array over its ids."""
        axes = [
            CutAxis(axis.name, len(axis.units), tuple(np.flatnonzero(dead[axis.units]).tolist()))
            for axis in _makers(graph)
        ]
        return cls(tuple(axes), graph.layer_norm)

    def dead(self, graph: ChannelGraph) -> np.ndarray:
        """Return the units that go, as a boolean array over a graph's ids.

        Raises:
            InvalidArgumentError: if the history does not fit the graph.
        """
        makers = _makers(graph)
        known = [(axis.name, len(axis.units)) for axis in makers]
        # By place and width, not by name: a model built twice has other automatic names.
        if [size for _, size in known] != [axis.size for axis in self.axes]:
            given = [(axis.name, axis.size) for axis in self.axes]
            raise InvalidArgumentError(
                f"The history does not fit {graph.model.name!r}: "
                f"{_first_difference(given, known)}. It counts from the first model that was "
                "shrunk, and fits its architecture."
            )
        dead = np.zeros(graph.size, bool)
        for axis, cut in zip(makers, self.axes, strict=True):
            dead[axis.units[list(cut.removed)]] = True
        wrong = [
            axis.name
            for axis, cut in zip(makers, self.axes, strict=True)
            if np.flatnonzero(dead[axis.units]).tolist() != list(cut.removed)
            or not graph.is_alive[axis.units[list(cut.removed)]].all()
            or len(cut.removed) == cut.size
        ]
        if wrong:
            raise InvalidArgumentError(
                f"The history does not fit {graph.model.name!r}, whose channels are coupled in "
                f"another way, at: {', '.join(wrong)}."
            )
        return dead

    def then(self, later: ShrinkHistory) -> ShrinkHistory:
        """Return this history followed by one of the model that it leads to, as one."""
        axes = []
        for first, second in zip(self.axes, later.axes, strict=True):
            left = np.delete(np.arange(first.size), list(first.removed))
            removed = sorted([*first.removed, *left[list(second.removed)].tolist()])
            axes.append(CutAxis(first.name, first.size, tuple(removed)))
        layer_norm = "allow" if "allow" in (self.layer_norm, later.layer_norm) else "freeze"
        return ShrinkHistory(tuple(axes), layer_norm)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        axes = [{"name": a.name, "size": a.size, "removed": list(a.removed)} for a in self.axes]
        return {"version": _VERSION, "layer_norm": self.layer_norm, "axes": axes}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ShrinkHistory:
        """Rebuild the history from `to_dict()`.

        Raises:
            InvalidArgumentError: if the values are not a history.
        """
        try:
            if values["version"] != _VERSION or values["layer_norm"] not in LAYER_NORM_MODES:
                raise ValueError(f"version {values['version']}, {values['layer_norm']!r}")
            axes = [
                CutAxis(str(a["name"]), int(a["size"]), _checked(a["removed"], int(a["size"])))
                for a in values["axes"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgumentError(
                f"This is not a history of tfprune's, version {_VERSION}: {error}."
            ) from error
        return cls(tuple(axes), values["layer_norm"])

    def save(self, path: str | Path) -> None:
        """Write the history as JSON.

        Raises:
            ArtifactError: if the file cannot be written.
        """
        try:
            Path(path).write_text(json.dumps(self.to_dict()) + "\n")
        except OSError as error:
            raise ArtifactError(f"The history could not be written: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> ShrinkHistory:
        """Read what `save` wrote.

        Raises:
            ArtifactError: if the file cannot be read.
            InvalidArgumentError: if it holds no history.
        """
        try:
            text = Path(path).read_text()
        except OSError as error:
            raise ArtifactError(f"The history could not be read: {error}") from error
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InvalidArgumentError(f"{path} holds no JSON: {error}.") from error
        return cls.from_dict(values)

    def __str__(self) -> str:
        lines = [
            f"{axis.name}: {axis.size} -> {axis.size - len(axis.removed)} without "
            f"{_shortened(axis.removed)}"
            for axis in self.axes
            if axis.removed
        ]
        return "\n".join(lines) or "nothing was cut"


def replay(model: keras.Model, history: ShrinkHistory) -> keras.Model:
    """Cut the same channels from a model of the same architecture.

    Args:
        model: a built Functional or Sequential model; it is not changed.
        history: what to cut.

    Returns:
        A new, uncompiled model.

    Raises:
        InvalidArgumentError: if the history does not fit the model.
        InvalidTypeError: for anything but a Keras model.
        UnsupportedModelError: for a tf_keras, unbuilt, subclassed or pruned model.

    Example:
        >>> import tfprune
        >>> layers = [keras.layers.Dense(4), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> small = tfprune.shrink(model, 0.5)
        >>> replay(model, history_of(small)).count_params() == small.count_params()
        True
    """
    graph = ChannelGraph(model, layer_norm=history.layer_norm)
    small = rebuild_narrow(graph, history.dead(graph))
    remember(small, history, model)
    return small


def history_of(model: keras.Model) -> ShrinkHistory:
    """Return what was cut to make a model, all the cuts since the first model as one.

    The history lives in this process, not in the model's file: `save` it to keep it.

    Args:
        model: what `tfprune.shrink` or `replay` returned.

    Raises:
        InvalidArgumentError: if nothing is known of the model.
    """
    if model not in _HISTORIES:
        raise InvalidArgumentError(
            f"{model.name!r} was not shrunk in this process, so its history is not known. Keep one "
            "with `history.save(path)`, and read it with `ShrinkHistory.load(path)`."
        )
    return _HISTORIES[model]


def remember(small: keras.Model, history: ShrinkHistory, source: keras.Model) -> None:
    """Keep the history of a new model, after that of the model it was made from."""
    earlier = _HISTORIES.get(source)
    fits = earlier is not None and len(earlier.axes) == len(history.axes)
    _HISTORIES[small] = earlier.then(history) if fits else history


def _makers(graph: ChannelGraph) -> list[Any]:
    return [axis for axis in graph.axes if axis.makes]


def _checked(removed: Sequence[int], size: int) -> tuple[int, ...]:
    indices = tuple(int(index) for index in removed)
    if list(indices) != sorted(set(indices)) or not all(0 <= i < size for i in indices):
        raise ValueError(f"{indices} are not indices below {size}, in order")
    return indices


def _first_difference(given: list[tuple[str, int]], known: list[tuple[str, int]]) -> str:
    if len(given) != len(known):
        return f"it has {len(given)} axes of channels, the model {len(known)}"
    pair = next((a, b) for a, b in zip(given, known, strict=True) if a[1] != b[1])
    return f"{pair[0][0]} has {pair[0][1]} channels, {pair[1][0]} {pair[1][1]}"


def _shortened(indices: Sequence[int], limit: int = 10) -> str:
    more = f" ... ({len(indices) - limit} more)" if len(indices) > limit else ""
    return " ".join(map(str, indices[:limit])) + more

"""Meters: what a cut leaves of a model's channels, parameters, FLOPs or bytes.

A meter estimates the result of a cut from the counts of kept channels, so that thousands of cuts
can be compared without building one, and measures a model that was built. The search for a cut
corrects the estimate by the measurement.
"""

from __future__ import annotations

import abc
import math
import tempfile
from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidTypeError
from tfprune.profiling import profile
from tfprune.profiling.walk import find_layers
from tfprune.structured.graph import ChannelGraph
from tfprune.structured.rebuild import Kept
from tfprune.targets import Bytes, Channels, Flops, Parameters, Target


class Meter(abc.ABC):
    """Says how much of something a cut leaves.

    Attributes:
        unit: what is counted, in words.
        total: how much the given model has.
        grain: what no cut can be blamed for missing the target by.
    """

    unit: str
    total: float
    grain: float = 0.0

    @abc.abstractmethod
    def estimate(self, dead: np.ndarray) -> float:
        """Return how much a cut leaves, without building the model."""

    @abc.abstractmethod
    def measure(self, model: keras.Model, dead: np.ndarray) -> float:
        """Return how much the model has that a cut has led to."""


def meter_for(target: Target, graph: ChannelGraph, units: np.ndarray) -> Meter:
    """Return the meter of a target.

    Args:
        target: the target.
        graph: the channels of the given model.
        units: the units that may be cut.

    Raises:
        InvalidTypeError: for a target of another class.
    """
    if isinstance(target, Channels):
        return _ChannelMeter(units)
    if isinstance(target, Parameters):
        return _ParameterMeter(graph)
    if isinstance(target, Flops):
        return _FlopMeter(graph, target.input_shapes)
    if isinstance(target, Bytes):
        return _ByteMeter(graph, target)
    raise InvalidTypeError(
        "`target` must be a fraction of channels to keep, or one of tfprune.targets: Channels, "
        f"Parameters, Flops, Bytes. Received: {target!r}"
    )


class _ChannelMeter(Meter):
    unit = "channels"
    grain = 0.5

    def __init__(self, units: np.ndarray) -> None:
        self._units = units
        self.total = len(units)

    def estimate(self, dead: np.ndarray) -> float:
        return self.total - int(dead[self._units].sum())

    def measure(self, model: keras.Model, dead: np.ndarray) -> float:
        return self.estimate(dead)


class _ParameterMeter(Meter):
    unit = "parameters"

    def __init__(self, graph: ChannelGraph) -> None:
        self._sizes = _Sizes(graph)
        self._weights = {id(weight): weight for weight in graph.model.weights}.values()
        self.total = sum(math.prod(weight.shape) for weight in self._weights)

    def estimate(self, dead: np.ndarray) -> float:
        size = self._sizes.of_cut(dead)
        return sum(size(weight) for weight in self._weights)

    def measure(self, model: keras.Model, dead: np.ndarray) -> float:
        return model.count_params()


class _FlopMeter(Meter):
    """MACs go with the size of a layer's kernels, other work with the width of its output."""

    unit = "FLOPs"

    def __init__(self, graph: ChannelGraph, input_shapes: Any) -> None:
        self._graph, self._input_shapes = graph, input_shapes
        self._sizes = _Sizes(graph)
        before = profile(graph.model, input_shapes=input_shapes, gzip=False)
        self.total = before.flops
        nodes = {node.path: node for node in find_layers(graph.model).nodes}
        outputs = {id(call.operation): call.outputs[0] for call in graph.walk.calls}
        self._rows = []
        for row in before.layers:
            if not row.flops:
                continue
            node = nodes[row.path]
            kernels = [weight for weight in node.weights if len(weight.shape) > 1]
            number = outputs.get(id(node.operation))
            self._rows.append((2 * row.macs, row.flops - 2 * row.macs, kernels, number))

    def estimate(self, dead: np.ndarray) -> float:
        size, kept = self._sizes.of_cut(dead), Kept(self._graph, dead)
        total = 0.0
        for macs, others, kernels, number in self._rows:
            wiring = None if number is None else self._graph.wirings[number]
            width = 1.0 if wiring is None else kept.count(wiring.ids) / len(wiring.ids)
            whole = sum(math.prod(kernel.shape) for kernel in kernels)
            share = sum(map(size, kernels)) / whole if whole else width
            total += macs * share + others * width
        return total

    def measure(self, model: keras.Model, dead: np.ndarray) -> float:
        return profile(model, input_shapes=self._input_shapes, gzip=False).flops


class _ByteMeter(Meter):
    """What is not weights - the graph, the names - stays as large as it is."""

    def __init__(self, graph: ChannelGraph, target: Bytes) -> None:
        self._target = target
        self.unit = f"bytes of {target.format}"
        self._parameters = _ParameterMeter(graph)
        self.total = self._weigh(graph.model)
        self._rate = _BYTES_PER_PARAMETER.get(target.format, 4)

    def estimate(self, dead: np.ndarray) -> float:
        gone = self._parameters.total - self._parameters.estimate(dead)
        return self.total - self._rate * gone

    def measure(self, model: keras.Model, dead: np.ndarray) -> float:
        return self._weigh(model)

    def _weigh(self, model: keras.Model) -> float:
        from tfprune.export import export_model

        with tempfile.TemporaryDirectory() as folder:
            report = export_model(
                model, folder + "/out", self._target.format, input_shape=self._target.input_shape
            )
            return report[self._target.format].bytes


# A first guess, which the measurement corrects.
_BYTES_PER_PARAMETER = {"tflite_float16": 2, "tflite_dynamic": 1, "tflite_int8": 1}


class _Sizes:
    """Sizes of weights after a cut."""

    def __init__(self, graph: ChannelGraph) -> None:
        self._graph = graph

    def of_cut(self, dead: np.ndarray) -> Any:
        kept = Kept(self._graph, dead)
        counts: dict[int, int] = {}

        def count(ids: np.ndarray) -> int:
            # The same array of ids lies on several weights.
            if id(ids) not in counts:
                counts[id(ids)] = kept.count(ids)
            return counts[id(ids)]

        def size(weight: keras.Variable) -> int:
            entry = self._graph.book.weights.get(id(weight))
            ids = entry.ids if entry else [None] * len(weight.shape)
            return math.prod(
                known if axis is None else count(axis)
                for known, axis in zip(weight.shape, ids, strict=True)
            )

        return size

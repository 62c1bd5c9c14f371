"""`fit_cost_model`: the unit costs of the runtime at hand, from small programs timed on it.

Each probe repeats one operator. Its time is a sum of counts times unit costs, so the unit costs are
the solution of least squares; it is held near the defaults where the probes say little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np

from tfprune.export.sparse_runtime.compiler.costs import (
    WASM,
    CostModel,
    dense_counts,
    sparse_counts,
)
from tfprune.export.sparse_runtime.compiler.emitter import Emitter, mean
from tfprune.export.sparse_runtime.compiler.program import Program, Tensor
from tfprune.export.sparse_runtime.compiler.writing import write_program

_REPEATS = 6
_SIZES = ((64, 28), (128, 14), (256, 7))  # Channels, and height and width.
_STEM = 12
# A unit cost that is off by a factor of two weighs as much as a probe that is off by a quarter.
_PRIOR_WEIGHT = 0.25
_LEAST = 0.05

Layer = Callable[[Emitter, Tensor, np.random.Generator], Tensor]


def fit_cost_model(milliseconds: Callable[[bytes, dict[str, np.ndarray]], float]) -> CostModel:
    """Fit the unit costs of a runtime.

    Args:
        milliseconds: times a call of a `.tflite` file with some inputs.
    """
    counts, times = [], []
    for program in probes():
        inputs = {tensor.name: np.ones(tensor.shape, np.float32) for tensor in program.inputs}
        times.append(milliseconds(write_program(program), inputs))
        counts.append(_counts(program))
    return solved(counts, times)


def solved(counts: list[dict[str, float]], times: list[float]) -> CostModel:
    """Return the unit costs that explain times, each as well as the others in relation to it.

    What any call takes, however small the file, is fitted beside them: it decides nothing.

    Args:
        counts: how many of each unit each program takes.
        times: its milliseconds.

    Example:
        >>> found = solved([{"dense_mac": 1e6}, {"sparse_mac": 1e6}], [0.2, 0.05])
        >>> WASM.dense_mac < found.dense_mac < 0.2, found.tap3 == WASM.tap3
        (True, True)
    """
    default = asdict(WASM)
    units = list(default)
    rows = [
        [1e-6 * default[unit] * own.get(unit, 0.0) / time for unit in units]
        for own, time in zip(counts, times, strict=True)
    ]
    every_call = min(times) / np.array(times)[:, np.newaxis]
    prior = _PRIOR_WEIGHT * np.eye(len(units), len(units) + 1)
    matrix = np.vstack([np.hstack([rows, every_call]), prior])
    target = np.concatenate([np.ones(len(times)), np.full(len(units), _PRIOR_WEIGHT)])
    factors = np.maximum(np.linalg.lstsq(matrix, target, rcond=None)[0][:-1], _LEAST)
    return CostModel(
        **{
            unit: default[unit] * float(round(factor, 9))
            for unit, factor in zip(units, factors, strict=True)
        }
    )


def probes() -> Iterator[Program]:
    """Yield programs to be timed, inside and outside of sparse mode."""
    for channels, size in _SIZES:
        for layer in (None, *_INSIDE):
            yield _inside(layer, channels, size)
        for layer in (None, *_OUTSIDE):
            yield _outside(layer, channels, size)


def _counts(program: Program) -> dict[str, float]:
    total: dict[str, float] = {}
    for op in program.ops:
        for unit, count in (dense_counts if op.outside else sparse_counts)(op).items():
            total[unit] = total.get(unit, 0.0) + float(count)
    return total


def _inside(layer: Layer | None, channels: int, size: int) -> Program:
    """Repeat a layer between a stem and a mean."""
    from ai_edge_litert import schema_py_generated as schema

    rng = np.random.default_rng(0)
    x = Tensor("x", (1, 2 * size, 2 * size, 3))
    emitter = Emitter()
    filters = rng.normal(size=(_STEM, 3, 3, 3)).astype(np.float32)
    inputs = [x, emitter.constant(filters), emitter.constant(np.zeros(_STEM, np.float32))]
    options = schema.Conv2DOptionsT(1, 2, 2, 0, 1, 1)
    shape = (1, size, size, _STEM)
    y = emitter.emit("CONV_2D", inputs, shape, options, pads=((1, 1), (1, 1)))
    y = emitter.pointwise(y, _sparse(rng, channels, _STEM, 0.7))
    for _ in range(_REPEATS if layer else 0):
        y = layer(emitter, y, rng)
    return _pooled(emitter, x, y)


def _outside(layer: Layer | None, channels: int, size: int) -> Program:
    rng = np.random.default_rng(0)
    x = Tensor("x", (1, size, size, channels))
    emitter = Emitter()
    y = emitter.scale(x, 0.5)
    for _ in range(_REPEATS if layer else 0):
        y = layer(emitter, y, rng)
    program = _pooled(emitter, x, y)
    for op in program.ops:
        op.outside, op.sparse = True, False
    return program


def _pooled(emitter: Emitter, x: Tensor, y: Tensor) -> Program:
    output = Tensor("y", (1, y.shape[3]))
    emitter.ops.append(mean(y, output, keep_axes=False))
    return Program(emitter.ops, [x], [output])


def _sparse(rng: np.random.Generator, outputs: int, inputs: int, sparsity: float) -> np.ndarray:
    values = rng.normal(size=(outputs, inputs)) / inputs
    return np.where(rng.random(values.shape) < sparsity, 0, values).astype(np.float32)


def _pointwise(sparsity: float) -> Layer:
    def layer(emitter: Emitter, x: Tensor, rng: np.random.Generator) -> Tensor:
        return emitter.pointwise(x, _sparse(rng, x.shape[3], x.shape[3], sparsity))

    return layer


def _depthwise(kernel: int) -> Layer:
    def layer(emitter: Emitter, x: Tensor, rng: np.random.Generator) -> Tensor:
        return emitter.depthwise(x, rng.normal(size=(kernel, kernel, x.shape[3])) / kernel**2)

    return layer


def _strided(emitter: Emitter, x: Tensor, rng: np.random.Generator) -> Tensor:
    """Halve a map in vain, for its mean, and go on with the map."""
    half = emitter.depthwise(x, rng.normal(size=(3, 3, x.shape[3])) / 9, 2)
    pooled = Tensor("pooled", (1, 1, 1, x.shape[3]))
    emitter.ops.append(mean(half, pooled, keep_axes=True))
    return emitter.add(pooled, x)


def _added(emitter: Emitter, x: Tensor, rng: np.random.Generator) -> Tensor:
    return emitter.add(x, x)


def _scaled(emitter: Emitter, x: Tensor, rng: np.random.Generator) -> Tensor:
    return emitter.scale(x, 0.5)


def _convolution(kernel: int) -> Layer:
    from ai_edge_litert import schema_py_generated as schema

    def layer(emitter: Emitter, x: Tensor, rng: np.random.Generator) -> Tensor:
        channels = x.shape[3]
        filters = rng.normal(size=(channels, kernel, kernel, channels)) / channels
        inputs = [x, emitter.constant(filters), emitter.constant(np.zeros(channels))]
        pads = ((kernel // 2, kernel // 2),) * 2
        options = schema.Conv2DOptionsT(1, 1, 1, 0, 1, 1)
        return emitter.emit("CONV_2D", inputs, x.shape, options, pads=pads)

    return layer


def _max_pool(emitter: Emitter, x: Tensor, rng: np.random.Generator) -> Tensor:
    from ai_edge_litert import schema_py_generated as schema

    return emitter.emit("MAX_POOL_2D", [x], x.shape, schema.Pool2DOptionsT(0, 1, 1, 3, 3))


def _moved(emitter: Emitter, x: Tensor, rng: np.random.Generator) -> Tensor:
    from ai_edge_litert import schema_py_generated as schema

    batch, rows, columns, channels = x.shape
    image = (batch, 2 * rows, 2 * columns, channels // 4)
    options = schema.DepthToSpaceOptionsT(2)
    y = emitter.emit("DEPTH_TO_SPACE", [x], image, options)
    return emitter.emit("SPACE_TO_DEPTH", [y], x.shape, schema.SpaceToDepthOptionsT(2))


_INSIDE: tuple[Layer, ...] = (
    _pointwise(0.7), _pointwise(0.9), _pointwise(0.98), _depthwise(3), _depthwise(5), _strided,
    _added, _scaled,
)  # fmt: skip
_OUTSIDE: tuple[Layer, ...] = (
    _convolution(1), _convolution(3), _depthwise(3), _depthwise(5), _max_pool, _moved, _added,
)  # fmt: skip

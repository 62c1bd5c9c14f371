"""What a program costs: the predicted milliseconds of operators, inside and outside of sparse mode.

Every operator is a constant plus a few counts times their unit costs. What dominates inside is not
the multiplications but passes over memory, which is why there are so many ways to lower a
convolution. The defaults were measured operator by operator, in chains of equal ones; `fitting.py`
does that on the runtime at hand.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tfprune.errors import ArtifactError
from tfprune.export.sparse_runtime.compiler.program import Op, Tensor

_MOVING = (
    "CONCATENATION", "DEPTH_TO_SPACE", "PAD", "REVERSE_V2", "SLICE", "SPACE_TO_DEPTH", "SPLIT",
    "STRIDED_SLICE", "TRANSPOSE",
)  # fmt: skip
_PIXELS = 16  # Sparse products work on so many pixels at once.


@dataclass(frozen=True)
class CostModel:
    """Unit costs in nanoseconds.

    Args:
        call: of every operator.
        dense_mac: of a multiplication of a dense convolution or matrix product.
        dense_depthwise_mac: of a multiplication of a dense depthwise convolution.
        dense_pool: of a value in a window of a dense pooling.
        dense_move: of a value that is read or written by a dense operator that only moves values.
        dense_value: of a value that any other dense operator reads or writes.
        sparse_mac: of a multiplication by a non-zero of a sparse 1x1 convolution.
        sparse_read: of an input value of a sparse 1x1 convolution.
        sparse_write: of an output value of one.
        tap3: of an output value of a 3x3 depthwise convolution in sparse mode.
        tap3_strided: likewise, of stride 2.
        tap5: of an output value of a 5x5 one.
        plane: of a channel of a depthwise convolution in sparse mode.
        value: of a value that any other operator in sparse mode reads or writes.
        entry: of an output value of the convolution that enters sparse mode.
    """

    call: float
    dense_mac: float
    dense_depthwise_mac: float
    dense_pool: float
    dense_move: float
    dense_value: float
    sparse_mac: float
    sparse_read: float
    sparse_write: float
    tap3: float
    tap3_strided: float
    tap5: float
    plane: float
    value: float
    entry: float

    @classmethod
    def read(cls, path: str | os.PathLike) -> CostModel:
        """Read a cost model that `write` wrote.

        Raises:
            ArtifactError: the file cannot be read, or holds anything else.
        """
        try:
            units = json.loads(Path(path).read_text(encoding="utf-8"))
            found = cls(**{unit: float(cost) for unit, cost in units.items()})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path} is no cost model: {error}") from error
        if min(units.values()) < 0 or not all(map(math.isfinite, units.values())):
            raise ArtifactError(f"{path} is no cost model: it holds negative or infinite costs.")
        return found

    def write(self, path: str | os.PathLike) -> None:
        """Write it as JSON.

        Raises:
            ArtifactError: the file cannot be written.
        """
        try:
            Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ArtifactError(f"Cannot write {path}: {error}") from error

    def total(self, ops: Iterable[Op]) -> float:
        """Return the milliseconds of lowered operators."""
        return sum(self.dense(op) if op.outside else self.sparse(op) for op in ops)

    def dense(self, op: Op) -> float:
        """Return the milliseconds of an operator outside of sparse mode."""
        return self._milliseconds(dense_counts(op))

    def sparse(self, op: Op) -> float:
        """Return the milliseconds of an operator in sparse mode."""
        return self._milliseconds(sparse_counts(op))

    def _milliseconds(self, counts: Mapping[str, float]) -> float:
        return 1e-6 * sum(getattr(self, unit) * count for unit, count in counts.items())


def dense_counts(op: Op) -> dict[str, float]:
    """Return how many of each unit an operator takes outside of sparse mode."""
    if op.code == "RESHAPE":
        return {}
    output = _size(op.output)
    if op.code == "DEPTHWISE_CONV_2D":
        return {"call": 1, "dense_depthwise_mac": output * np.prod(op.inputs[1].shape[1:3])}
    if op.code in ("CONV_2D", "FULLY_CONNECTED"):
        return {"call": 1, "dense_mac": output * np.prod(op.inputs[1].shape[1:])}
    if op.code == "TRANSPOSE_CONV":  # Each value that it reads meets the filter once.
        per_value = np.prod(op.inputs[1].shape[:3])
        return {"call": 1, "dense_mac": _size(op.inputs[2]) * per_value}
    if op.code in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        return {
            "call": 1,
            "dense_pool": output * op.options.filterHeight * op.options.filterWidth,
        }
    unit = "dense_move" if op.code in _MOVING else "dense_value"
    return {"call": 1, unit: output + sum(map(_size, op.activations))}


def sparse_counts(op: Op) -> dict[str, float]:
    """Return how many of each unit an operator takes in sparse mode."""
    output = _size(op.output)
    if op.code == "CONV_2D" and op.inputs[1].shape[1:3] == (1, 1):
        filters = op.inputs[1].values
        pixels = -(-output // filters.shape[0] // _PIXELS) * _PIXELS
        return {
            "call": 1,
            "sparse_mac": pixels * np.count_nonzero(filters),
            "sparse_read": _size(op.inputs[0]),
            "sparse_write": output,
        }
    if op.code == "CONV_2D":
        return {"call": 1, "entry": output}
    if op.code == "DEPTHWISE_CONV_2D":
        unit = "tap5" if op.inputs[1].shape[1] == 5 else "tap3"
        if op.strides == (2, 2) and unit == "tap3":
            unit = "tap3_strided"
        return {"call": 1, unit: output, "plane": op.output.shape[3]}
    return {"call": 1, "value": output + sum(map(_size, op.activations))}


def _size(tensor: Tensor) -> int:
    return math.prod(tensor.shape)


WASM = CostModel(
    call=500.0,
    dense_mac=0.05,
    dense_depthwise_mac=0.21,
    dense_pool=0.25,
    dense_move=0.1,
    dense_value=0.05,
    sparse_mac=0.055,
    sparse_read=0.05,
    sparse_write=0.06,
    tap3=0.9,
    tap3_strided=1.2,
    tap5=4.3,
    plane=30.0,
    value=0.045,
    entry=3.9,
)
"""Measured in LiteRT.js, one thread, on x86: see the module docstring."""

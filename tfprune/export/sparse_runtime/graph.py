"""A `.tflite` file as a graph of operators: what the rules of the sparse mode look at."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import ArtifactError

# Operators whose output is a constant if their input is one: a weight, stored in another way.
_UNPACKING = ("DENSIFY", "DEQUANTIZE")
_NUMPY_TYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor.

    Args:
        name: its name in the file.
        shape: its shape; -1 where a size is open.
        dtype: name of its type in the schema, such as "FLOAT32".
        stored: the values that are stored, flat; None if it is computed.
        sparse: whether they are in the sparse encoding, which leaves out (most) zeros.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: np.ndarray | None
    sparse: bool


@dataclass(frozen=True)
class Operator:
    """An operator.

    Args:
        index: its place in the order of execution.
        name: its name in the schema, such as "CONV_2D".
        inputs: indices of tensors; -1 for one that is left out.
        outputs: indices of tensors.
        options: the fields of its options, such as `strideH`.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """The main subgraph of a file."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def is_sparse_encoded(self) -> bool:
        """Whether any weights are in the sparse encoding."""
        return any(tensor.sparse for tensor in self.tensors)

    @cached_property
    def producers(self) -> dict[int, Operator]:
        """The operator that computes each tensor."""
        return {tensor: op for op in self.operators for tensor in op.outputs}

    @cached_property
    def consumers(self) -> dict[int, list[Operator]]:
        """The operators that read each tensor."""
        found: dict[int, list[Operator]] = {}
        for op in self.operators:
            for tensor in op.inputs:
                found.setdefault(tensor, []).append(op)
        return found

    def constant(self, tensor: int) -> Tensor | None:
        """Return the stored tensor behind a constant one, or None if it is computed from inputs."""
        while (op := self.producers.get(tensor)) is not None and op.name in _UNPACKING:
            tensor = op.inputs[0]
        found = self.tensors[tensor]
        return None if found.stored is None else found

    def activations(self, op: Operator) -> list[int]:
        """Return the inputs of an operator that are computed, not constants."""
        return [tensor for tensor in op.inputs if tensor >= 0 and self.constant(tensor) is None]

    def zeros(self, tensor: int) -> tuple[int, int]:
        """Return how many values of a constant are zero, and how many there are."""
        stored = self.constant(tensor)
        size = int(np.prod(self.tensors[tensor].shape))
        return size - int(np.count_nonzero(stored.stored)), size


def read_graph(path: str | os.PathLike) -> Graph:
    """Read the main subgraph of a `.tflite` file.

    Raises:
        ArtifactError: there is no such file, or it is not a TFLite model.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"Cannot read {path}: {error}") from error
    return parse_graph(content, path)


def parse_graph(content: bytes, path: str | os.PathLike = "the file") -> Graph:
    """Read the main subgraph of the bytes of a `.tflite` file.

    Raises:
        ArtifactError: they are not a TFLite model, or damaged.
    """
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise ArtifactError(f"{path} is not a TFLite model: bytes 4 to 8 are not 'TFL3'.")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        return _graph(model, schema)
    # A damaged flatbuffer leads anywhere.
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ArtifactError(f"{path} is damaged or incomplete: {error}") from error


def _graph(model: Any, schema: Any) -> Graph:
    operator_names = _names(schema.BuiltinOperator)
    type_names = _names(schema.TensorType)
    main = model.subgraphs[0]
    codes = [
        operator_names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    ]

    def tensor(entry: Any) -> Tensor:
        data, dtype = model.buffers[entry.buffer].data, type_names[entry.type]
        stored = None if data is None or not len(data) else np.asarray(data, np.uint8)
        if stored is not None and dtype in _NUMPY_TYPES:
            stored = stored.view(_NUMPY_TYPES[dtype])
        shape = () if entry.shape is None else tuple(map(int, entry.shape))
        name = (entry.name or b"").decode(errors="replace")
        return Tensor(name, shape, dtype, stored, entry.sparsity is not None)

    def operator(index: int, entry: Any) -> Operator:
        inputs, outputs = (
            tuple(map(int, () if ends is None else ends)) for ends in (entry.inputs, entry.outputs)
        )
        options = {} if entry.builtinOptions is None else vars(entry.builtinOptions)
        return Operator(index, codes[entry.opcodeIndex], inputs, outputs, options)

    return Graph(
        tensors=tuple(map(tensor, main.tensors)),
        operators=tuple(operator(index, entry) for index, entry in enumerate(main.operators)),
        inputs=tuple(map(int, main.inputs)),
        outputs=tuple(map(int, main.outputs)),
    )


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}

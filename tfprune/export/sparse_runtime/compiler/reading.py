"""From the bytes of a `.tflite` file to a `Program`."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from tfprune.errors import ArtifactError, UnsupportedModelError
from tfprune.export.flatbuffer import load_model
from tfprune.export.sparse_runtime.compiler.encoding import decode
from tfprune.export.sparse_runtime.compiler.program import (
    NO_PADS,
    Op,
    Pads,
    Program,
    Tensor,
    same_padding,
)

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
SAME, VALID = 0, 1
_NUMPY_TYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


def read_program(content: bytes) -> Program:
    """Read a file.

    Args:
        content: the bytes of the file.

    Raises:
        ArtifactError: it is not a TFLite model, or damaged.
        UnsupportedModelError: it has several subgraphs, or an encoding that is not known here.
    """
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise ArtifactError("This is not a TFLite model: bytes 4 to 8 are not 'TFL3'.")
    try:
        model = load_model(content)
        if len(model.subgraphs) != 1:
            raise UnsupportedModelError(
                f"The model has {len(model.subgraphs)} subgraphs (control flow); one is supported."
            )
        return _program(model, schema)
    # A damaged flatbuffer leads anywhere.
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError) as error:
        if isinstance(error, UnsupportedModelError):
            raise
        raise ArtifactError(f"The TFLite model is damaged or incomplete: {error}") from error


def _program(model: Any, schema: Any) -> Program:
    (graph,) = model.subgraphs
    type_names = _names(schema.TensorType)
    tensors = [_tensor(entry, model, type_names) for entry in graph.tensors]
    float16 = any(tensor.dtype == "FLOAT16" and tensor.is_constant for tensor in tensors)
    names = _names(schema.BuiltinOperator)
    codes = [
        (names[max(code.builtinCode, code.deprecatedBuiltinCode)]) for code in model.operatorCodes
    ]
    ops = []
    for entry in graph.operators:
        inputs, outputs = (
            [None if index < 0 else tensors[index] for index in ([] if ends is None else ends)]
            for ends in (entry.inputs, entry.outputs)
        )
        op = Op(codes[entry.opcodeIndex], inputs, outputs, entry.builtinOptions, entry=entry)
        if not _unpacked(op):
            ops.append(op)
    program = Program(
        ops,
        [tensors[index] for index in graph.inputs],
        [tensors[index] for index in graph.outputs],
        float16,
        model,
    )
    _fold_pads(program)
    return program


def _tensor(entry: Any, model: Any, type_names: dict[int, str]) -> Tensor:
    dtype = type_names[entry.type]
    shape = () if entry.shape is None else tuple(map(int, entry.shape))
    data = model.buffers[entry.buffer].data
    values = None
    if data is not None and len(data):
        values = np.asarray(data, np.uint8)
        if dtype in _NUMPY_TYPES:
            values = values.view(_NUMPY_TYPES[dtype])
        if entry.sparsity is not None:
            values = decode(values, shape, entry.sparsity)
            if values is None:
                raise UnsupportedModelError(
                    f"The weights {(entry.name or b'').decode()!r} are in a sparse encoding of "
                    "blocks or of several axes, which is not supported."
                )
        elif dtype in _NUMPY_TYPES:
            values = values.reshape(shape)
    return Tensor((entry.name or b"").decode(errors="replace"), shape, dtype, values, entry)


def _unpacked(op: Op) -> bool:
    """Give the output of an operator that only unpacks a constant float its values."""
    if op.code not in ("DENSIFY", "DEQUANTIZE") or not op.inputs[0].is_constant:
        return False
    if op.code == "DEQUANTIZE" and op.inputs[0].dtype != "FLOAT16":
        return False
    values = op.inputs[0].values
    op.output.values = values.astype(np.float32) if op.output.dtype == "FLOAT32" else values
    return True


def _fold_pads(program: Program) -> None:
    """Write the padding of convolutions in numbers, and that of a PAD before them with it."""
    producers = program.producers()
    for op in program.ops:
        if op.code not in CONVOLUTIONS or not op.inputs[1].is_constant:
            continue
        kernel = op.inputs[1].shape[1:3]
        op.pads = NO_PADS
        if op.options.padding == SAME:
            dilations = (op.options.dilationHFactor, op.options.dilationWFactor)
            axes = zip(op.inputs[0].shape[1:3], kernel, op.strides, dilations, strict=True)
            op.pads = tuple(  # type: ignore[assignment]
                same_padding(size, (k - 1) * dilation + 1, stride)
                for size, k, stride, dilation in axes
            )
        producer = producers.get(op.inputs[0])
        while producer is not None and (around := spatial_padding(producer)) is not None:
            op.pads = tuple(  # type: ignore[assignment]
                (before + own_before, after + own_after)
                for (before, after), (own_before, own_after) in zip(around, op.pads, strict=True)
            )
            op.inputs[0] = producer.inputs[0]
            producer = producers.get(op.inputs[0])
    program.drop_unused()


def spatial_padding(op: Op) -> Pads | None:
    """Return the zeros that a PAD puts around a map, or None if the operator does anything else."""
    if op.code != "PAD" or not op.inputs[0].is_map or op.inputs[1].values is None:
        return None
    batch, height, width, channels = (tuple(map(int, pair)) for pair in op.inputs[1].values)
    if any(batch) or any(channels) or min(*height, *width) < 0:
        return None
    return height, width


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}

"""From a `Program` to the bytes of a `.tflite` file.

What is decided here is storage: equal constants are stored once, float16 where the file that was
read had it and the values lose nothing by it, filters that run sparse in the sparse encoding, and
padding as "same" or as a PAD. XNNPACK takes a PAD into a convolution only if that is its one
reader, and counts the padding "same" of stride 2 as uneven even where it is even: so every
convolution gets a PAD of its own, and "same" is used where it is neither.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from tfprune.export.flatbuffer import pack_model
from tfprune.export.sparse_runtime.compiler.encoding import encode
from tfprune.export.sparse_runtime.compiler.program import (
    NO_PADS,
    Op,
    Program,
    Tensor,
    same_padding,
)
from tfprune.export.sparse_runtime.compiler.reading import CONVOLUTIONS, SAME, VALID

# Their filters and biases may be stored as float16: runtimes unpack them once.
_HALVED = (*CONVOLUTIONS, "FULLY_CONNECTED", "TRANSPOSE_CONV")
_VERSIONS = {"DEQUANTIZE": 3}


def write_program(program: Program) -> bytes:
    """Write a program; it is not changed."""
    return pack_model(_Writer(program).model())


class _Writer:
    """The state of writing: entries so far, and what they stand for."""

    def __init__(self, program: Program):
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.program = program
        self.buffers: list[Any] = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[int, int, str | None], int] = {}
        self.indices: dict[Tensor, int] = {}
        self.stored: dict[tuple, int] = {}
        # A filter of zeros only would have no bytes at all, which means that it is no constant.
        self.filters = {
            op.inputs[1] for op in program.ops if op.sparse and np.any(op.inputs[1].values)
        }
        self.halved = self._halved() if program.float16 else set()

    def model(self) -> Any:
        """Return the object of the schema to pack."""
        schema, source = self.schema, self.program.model or _blank(self.program)
        inputs = [self.index(tensor) for tensor in self.program.inputs]
        for op in self.program.ops:
            self.operator(op)
        outputs = [self.index(tensor) for tensor in self.program.outputs]
        (graph,) = source.subgraphs
        signatures = copy.deepcopy(source.signatureDefs)
        for signature in signatures or []:
            self._remap(signature.inputs, graph.inputs, inputs)
            self._remap(signature.outputs, graph.outputs, outputs)
        return schema.ModelT(
            version=source.version,
            operatorCodes=self._operator_codes(),
            subgraphs=[schema.SubGraphT(self.tensors, inputs, outputs, self.operators, graph.name)],
            description=source.description,
            metadata=self._metadata(),
            signatureDefs=signatures,
            buffers=self.buffers,  # Last: metadata add to them.
        )

    def index(self, tensor: Tensor) -> int:
        """Return the index of a tensor, which is written when it is first asked for."""
        if tensor not in self.indices:
            if tensor.is_constant and tensor.dtype == "FLOAT32":
                self.indices[tensor] = self._weights(tensor)
            else:
                self.indices[tensor] = self._entry(tensor)
        return self.indices[tensor]

    def operator(self, op: Op) -> None:
        """Write an operator, with a PAD before it if it needs one."""
        options, inputs = op.options, [-1 if x is None else self.index(x) for x in op.inputs]
        if op.pads is not None:
            options = copy.copy(options)
            options.padding = SAME if _is_same(op) else VALID
            if options.padding == VALID and op.pads != NO_PADS:
                inputs[0] = self._padded(op, inputs[0])
        outputs = [self.index(tensor) for tensor in op.outputs]
        self._append(op.code, inputs, outputs, options, op.entry)

    def _append(
        self, code: str, inputs: list[int], outputs: list[int], options: Any, entry: Any = None
    ) -> None:
        schema = self.schema
        version, custom = _VERSIONS.get(code, 1), None
        written = schema.OperatorT() if entry is None else copy.copy(entry)
        if entry is not None:
            read = self.program.model.operatorCodes[entry.opcodeIndex]
            version, custom = read.version, read.customCode
        key = (getattr(schema.BuiltinOperator, code), version, custom)
        written.opcodeIndex = self.codes.setdefault(key, len(self.codes))
        written.inputs, written.outputs = inputs, outputs
        written.builtinOptions = options
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            written.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        self.operators.append(written)

    def _padded(self, op: Op, index: int) -> int:
        x, (height, width) = op.inputs[0], op.pads
        pads = Tensor.constant("pads", np.array([(0, 0), height, width, (0, 0)], np.int32))
        batch, rows, columns, channels = x.shape
        shape = (batch, rows + sum(height), columns + sum(width), channels)
        padded = self._entry(Tensor(f"{op.output.name}/padded", shape))
        self._append("PAD", [index, self._entry(pads)], [padded], self.schema.PadOptionsT())
        return padded

    def _weights(self, tensor: Tensor) -> int:
        """Write a constant float, with the operators that unpack it."""
        values, sparse = tensor.values, tensor in self.filters
        half = tensor in self.halved
        key = (tensor.shape, sparse, half, values.tobytes())
        if key in self.stored:
            return self.stored[key]
        stored = values.astype(np.float16) if half else values
        parameters = None
        if sparse:
            stored, parameters = encode(stored)
        dtype = "FLOAT16" if half else "FLOAT32"
        index = self._entry(Tensor(tensor.name, tensor.shape, dtype, stored, tensor.stored))
        self.tensors[index].sparsity = parameters
        if sparse:
            dense = self._entry(Tensor(f"{tensor.name}/dense", tensor.shape, dtype))
            self._append("DENSIFY", [index], [dense], self.schema.DensifyOptionsT())
            index = dense
        if half:
            full = self._entry(Tensor(f"{tensor.name}/float32", tensor.shape))
            self._append("DEQUANTIZE", [index], [full], self.schema.DequantizeOptionsT())
            index = full
        self.stored[key] = index
        return index

    def _entry(self, tensor: Tensor) -> int:
        """Add the entry of a tensor as it is."""
        schema = self.schema
        entry = schema.TensorT() if tensor.stored is None else copy.copy(tensor.stored)
        entry.name = tensor.name.encode()
        entry.shape = np.array(tensor.shape, np.int32)
        entry.type = getattr(schema.TensorType, tensor.dtype)
        entry.buffer = 0
        entry.sparsity = None
        entry.hasRank = True
        if tensor.values is not None:
            entry.buffer = self._buffer(tensor.values)
        self.tensors.append(entry)
        return len(self.tensors) - 1

    def _buffer(self, values: np.ndarray) -> int:
        data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        key = ("bytes", data.tobytes())
        if key not in self.stored:
            self.buffers.append(self.schema.BufferT(data))
            self.stored[key] = len(self.buffers) - 1
        return self.stored[key]

    def _halved(self) -> set[Tensor]:
        """Return the weights that float16 holds without a loss, and only unpacked ones."""
        others = {x for op in self.program.ops if op.code not in _HALVED for x in op.inputs if x}
        weights = {x for op in self.program.ops if op.code in _HALVED for x in op.inputs[1:] if x}
        with np.errstate(over="ignore"):
            return {
                tensor
                for tensor in weights - others
                if tensor.dtype == "FLOAT32"
                and tensor.is_constant
                and np.array_equal(tensor.values.astype(np.float16), tensor.values)
            }

    def _operator_codes(self) -> list[Any]:
        largest_deprecated = 127
        return [
            self.schema.OperatorCodeT(min(code, largest_deprecated), custom, version, code)
            for code, version, custom in self.codes
        ]

    def _metadata(self) -> list[Any]:
        written = []
        for entry in getattr(self.program.model, "metadata", None) or []:
            data = self.program.model.buffers[entry.buffer].data
            if data is not None:
                self.buffers.append(self.schema.BufferT(np.asarray(data, np.uint8)))
                written.append(self.schema.MetadataT(entry.name, len(self.buffers) - 1))
        return written

    @staticmethod
    def _remap(entries: list[Any], old: Any, new: list[int]) -> None:
        indices = dict(zip(map(int, old), new, strict=True))
        for entry in entries:
            entry.tensorIndex = indices[entry.tensorIndex]


def _blank(program: Program) -> Any:
    """Return what a program that was not read from a file has instead of one."""
    from ai_edge_litert import schema_py_generated as schema

    inputs, outputs = list(range(len(program.inputs))), list(range(len(program.outputs)))
    fed, fetched = (
        [schema.TensorMapT(tensor.name.encode(), index) for index, tensor in enumerate(tensors)]
        for tensors in (program.inputs, program.outputs)
    )
    signature = schema.SignatureDefT(fed, fetched, b"serving_default", 0)
    graph = schema.SubGraphT([], inputs, outputs, [], b"main")
    return schema.ModelT(3, [], [graph], b"", [], signatureDefs=[signature])


def _is_same(op: Op) -> bool:
    """Whether the padding of a convolution is to be written as "same"."""
    axes = zip(op.inputs[0].shape[1:3], op.inputs[1].shape[1:3], op.strides, strict=True)
    dilated = op.options.dilationHFactor != 1 or op.options.dilationWFactor != 1
    if op.pads == NO_PADS or dilated:
        return False
    even = all(before == after for before, after in op.pads)
    if even and op.strides != (1, 1):
        return False
    return op.pads == tuple(same_padding(*axis) for axis in axes)

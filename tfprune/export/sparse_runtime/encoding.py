"""The sparse encoding of int8 files: smaller on disk, and after gzip not always.

No runtime runs int8 sparse: the zeros are filled in when the file is loaded. So the encoding is
about bytes alone, and which is smaller is measured.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfprune.export.data import Samples
from tfprune.export.flatbuffer import load_model, pack_model
from tfprune.export.report import gzip_size
from tfprune.export.runners import LiteRtRunner
from tfprune.export.sparse_runtime.check import check_file
from tfprune.export.sparse_runtime.graph import read_graph

_EXAMPLES = 2


def encode_sparse(content: bytes) -> bytes:
    """Return an int8 file with the sparse filters of its convolutions in the sparse encoding.

    The encoder is what the converter itself runs last, with `EXPERIMENTAL_SPARSITY`. It takes the
    weights of FULLY_CONNECTED too, which LiteRT then refuses to load ("failed to delegate
    FULLY_CONNECTED"): those are put back as they were.
    """
    from ai_edge_litert import schema_py_generated as schema
    from tensorflow.lite.python.convert import mlir_sparsify

    model, dense = load_model(mlir_sparsify(content)), load_model(content)
    operators = schema.BuiltinOperator
    for graph, dense_graph in zip(model.subgraphs, dense.subgraphs, strict=True):
        codes = [model.operatorCodes[op.opcodeIndex].builtinCode for op in graph.operators]
        unpacking = {
            op.outputs[0]: op
            for op, code in zip(graph.operators, codes, strict=True)
            if code == operators.DENSIFY
        }
        # The encoder adds DENSIFY, and leaves the others in their order.
        others = [op for op in graph.operators if op.outputs[0] not in unpacking]
        restored = set()
        for op, dense_op in zip(others, dense_graph.operators, strict=True):
            code = model.operatorCodes[op.opcodeIndex].builtinCode
            if code == operators.FULLY_CONNECTED and op.inputs[1] in unpacking:
                restored.add(op.inputs[1])
                weights = unpacking[op.inputs[1]].inputs[0]
                op.inputs = np.array([op.inputs[0], weights, *op.inputs[2:]], np.int32)
                tensor = graph.tensors[weights]
                tensor.sparsity = None
                stored = dense.buffers[dense_graph.tensors[dense_op.inputs[1]].buffer]
                model.buffers[tensor.buffer].data = stored.data
        graph.operators = [op for op in graph.operators if op.outputs[0] not in restored]
    return pack_model(model)


def choose_encoding(path: Path, samples: Samples, batch_size: int, *, always: bool) -> str:
    """Sparse-encode an int8 file if that makes it smaller after gzip.

    Args:
        path: the file; it is replaced.
        samples: what both encodings are compared on.
        batch_size: examples per call.
        always: whether to do it however large it becomes.

    Returns:
        Which encoding the file has now, and why, in a sentence.
    """
    encoded = path.with_name(f".sparse-{path.name}")
    try:
        encoded.write_bytes(encode_sparse(path.read_bytes()))
        if not read_graph(encoded).is_sparse_encoded:
            return "Dense encoding: too few weights are zero for a sparse one."
        sizes = {"dense": _sizes(path), "sparse": _sizes(encoded)}
        in_words = "{0[1]:,} bytes after gzip, {0[0]:,} raw".format
        if sizes["dense"][1] <= sizes["sparse"][1] and not always:
            return (
                f"Dense encoding ({in_words(sizes['dense'])}): the sparse one is larger after gzip "
                f"({in_words(sizes['sparse'])})."
            )
        if obstacle := _obstacle(path, encoded, samples, batch_size):
            return f"Dense encoding: with the sparse one the file {obstacle}."
        encoded.replace(path)
        return (
            f"Sparse encoding ({in_words(sizes['sparse'])}); dense it would be "
            f"{in_words(sizes['dense'])}. It runs dense: sparse mode is for floats."
        )
    finally:
        encoded.unlink(missing_ok=True)


def _sizes(path: Path) -> tuple[int, int]:
    return path.stat().st_size, gzip_size(path)


def _obstacle(dense: Path, encoded: Path, samples: Samples, batch_size: int) -> str:
    """Say what is wrong with the sparse-encoded file, which must compute the same to the bit."""
    if traps := check_file(encoded).traps:
        return f"is a trap ({traps[0]})"
    few = samples.first(_EXAMPLES * batch_size)
    with LiteRtRunner(dense, threads=1) as expected, LiteRtRunner(encoded, threads=1) as found:
        for batch, _ in few.batches(batch_size):
            outputs = found.run(batch)
            for name, array in expected.run(batch).items():
                if not np.array_equal(array, outputs[name]):
                    return "computes something else"
    return ""

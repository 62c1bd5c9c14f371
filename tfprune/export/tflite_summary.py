"""What is in a `.tflite` file of anyone's making, read without TensorFlow: `tfprune inspect`."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfprune.errors import ArtifactError
from tfprune.export.flatbuffer import load_model
from tfprune.export.nm_patterns import PatternShare, judged, pattern_shares, stored_kernels
from tfprune.export.report import gzip_size, zero_fraction


@dataclass(frozen=True)
class Port:
    """An input or output.

    Args:
        name: its name in the signature, or in the graph without one.
        shape: its shape; -1 where a size is open.
        dtype: its dtype, such as "float32".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class TfliteSummary:
    """The content of a TFLite file.

    Args:
        file: its path.
        bytes: its size.
        gzip_bytes: its size after gzip at level 9.
        inputs: its inputs.
        outputs: its outputs.
        operators: how many of each operator, the most frequent first; in all subgraphs.
        weight_bytes: bytes of constant tensors, by dtype as stored.
        sparse_tensors: constants in the sparse encoding, which leaves out zeros.
        sparsity: fraction of zeros in kernels and embeddings; None without any.
        patterns: N:M patterns of dense kernels.
        provenance: what tfprune recorded, or None.
        standard: the fields of TFLite Metadata, or None.
        labels: the lines of the label file, or None.

    Example:
        >>> import keras, tempfile, tfprune
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2)])
        >>> report = tfprune.export_model(model, tempfile.mkdtemp(), "tflite")
        >>> found = summarize(report.path("tflite"))
        >>> found.inputs, found.operators
        ((Port(name='x', shape=(1, 4), dtype='float32'),), {'FULLY_CONNECTED': 1})
    """

    file: str
    bytes: int
    gzip_bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: dict[str, int]
    weight_bytes: dict[str, int]
    sparse_tensors: int
    sparsity: float | None
    patterns: tuple[PatternShare, ...]
    provenance: dict[str, Any] | None
    standard: dict[str, Any] | None
    labels: list[str] | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def summarize(path: str | os.PathLike) -> TfliteSummary:
    """Read a TFLite file.

    Args:
        path: the file.

    Raises:
        ArtifactError: there is no such file, or it is no TFLite model, or it is damaged.
    """
    from tfprune.export.sparse_runtime.graph import read_graph
    from tfprune.export.tflite import stored_weights
    from tfprune.export.tflite_metadata import read_metadata

    path = Path(path)
    graph = read_graph(path)
    try:
        content = path.read_bytes()
        names, operators = _names_and_operators(content)
        ports = [
            tuple(
                Port(
                    names.get(index, graph.tensors[index].name),
                    graph.tensors[index].shape,
                    graph.tensors[index].dtype.lower(),
                )
                for index in ends
            )
            for ends in (graph.inputs, graph.outputs)
        ]
        weight_bytes: Counter[str] = Counter()
        for tensor in graph.tensors:
            if tensor.stored is not None:
                weight_bytes[tensor.dtype.lower()] += tensor.stored.nbytes
        return TfliteSummary(
            file=os.fspath(path),
            bytes=len(content),
            gzip_bytes=gzip_size(path),
            inputs=ports[0],
            outputs=ports[1],
            operators=dict(operators.most_common()),
            weight_bytes=dict(weight_bytes.most_common()),
            sparse_tensors=sum(tensor.sparse for tensor in graph.tensors),
            sparsity=zero_fraction(stored_weights(path)),
            patterns=pattern_shares(judged(stored_kernels(path))),
            **read_metadata(content),
        )
    # A damaged flatbuffer, archive or JSON leads anywhere.
    except Exception as error:
        raise ArtifactError(f"{path} is damaged or incomplete: {error!r}") from error


def _names_and_operators(content: bytes) -> tuple[dict[int, str], Counter[str]]:
    """Return the names of tensors in the signature, and the operators of all subgraphs."""
    from ai_edge_litert import schema_py_generated as schema

    model = load_model(content)
    known = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    codes = [
        known[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes
    ]
    operators = Counter(
        codes[op.opcodeIndex] for graph in model.subgraphs for op in graph.operators
    )
    names = {}
    for signature in (model.signatureDefs or [])[:1]:
        for entry in (*signature.inputs, *signature.outputs):
            names[entry.tensorIndex] = entry.name.decode()
    return names, operators

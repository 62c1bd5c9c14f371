"""Metadata in TFLite files: the standard flatbuffer, its label file, and tfprune's own record.

A file with metadata is the model, with two more metadata entries, and a zip archive of the label
file behind it, as TFLite Metadata has it: runtimes read the front, `unzip -p FILE labels.txt` the
end. Both are written without times.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np

from tfprune.export import metadata_schema
from tfprune.export.flatbuffer import load_model, pack_model
from tfprune.export.metadata import SCHEMA_KEY, SCHEMA_VERSION, Metadata

PROVENANCE = b"TFPRUNE_PROVENANCE"
LABELS_FILE = "labels.txt"

# The first version of the parser that knows all that is written here.
_MIN_PARSER_VERSION = "1.0.0"
_IMAGE_COLORS = {1: metadata_schema.GRAYSCALE, 3: metadata_schema.RGB}


def embed_metadata(content: bytes, text: str, record: dict[str, Any], metadata: Metadata) -> bytes:
    """Return a TFLite file with metadata.

    Args:
        content: the file.
        text: the record as JSON.
        record: the record of `tfprune.export.metadata.provenance`.
        metadata: the user's own.
    """
    model = load_model(content)
    standard = metadata_schema.write(_model_metadata(model, record, metadata))
    entries = {PROVENANCE: text.encode(), metadata_schema.NAME: standard}
    model.metadata = [entry for entry in model.metadata or [] if entry.name not in entries]
    for name, data in entries.items():
        model.buffers.append(_new("Buffer", data=np.frombuffer(data, np.uint8)))
        model.metadata.append(_new("Metadata", name=name, buffer=len(model.buffers) - 1))
    packed = pack_model(model)
    if metadata.labels is None:
        return packed
    archive = io.BytesIO(packed)
    with zipfile.ZipFile(archive, "a") as file:
        # The default date of an entry is a constant.
        file.writestr(zipfile.ZipInfo(LABELS_FILE), "".join(f"{x}\n" for x in metadata.labels))
    return archive.getvalue()


def read_metadata(content: bytes) -> dict[str, Any]:
    """Return the metadata of a TFLite file of anyone's making.

    Args:
        content: the file.

    Returns:
        `provenance`, what tfprune recorded, or None; `standard`, the fields of TFLite Metadata, or
        None; `labels`, the lines of its first label file, or None.
    """
    model = load_model(content)
    entries = {entry.name: model.buffers[entry.buffer].data for entry in model.metadata or []}
    standard = own = labels = None
    if metadata_schema.NAME in entries:
        standard = metadata_schema.read(bytes(entries[metadata_schema.NAME]))
        labels = _read_labels(content, standard)
    if PROVENANCE in entries:
        own = json.loads(bytes(entries[PROVENANCE]))
        if own[SCHEMA_KEY] != SCHEMA_VERSION:
            own = None
    return {"provenance": own, "standard": standard, "labels": labels}


def _read_labels(content: bytes, standard: dict[str, Any]) -> list[str] | None:
    names = [
        file["name"]
        for graph in standard.get("subgraph_metadata", [])
        for tensor in graph.get("output_tensor_metadata", [])
        for file in tensor.get("associated_files", [])
        if file.get("type") == metadata_schema.LABELS_OF_AN_AXIS
    ]
    if not names or not zipfile.is_zipfile(io.BytesIO(content)):
        return None
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(names[0]).decode("utf-8", errors="replace").splitlines()


def _new(kind: str, **fields: Any) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    made = getattr(schema, f"{kind}T")()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _model_metadata(model: Any, record: dict[str, Any], metadata: Metadata) -> dict[str, Any]:
    graph = model.subgraphs[0]
    names = {
        entry.tensorIndex: entry.name.decode()
        for signature in model.signatureDefs
        for entry in (*signature.inputs, *signature.outputs)
    }
    inputs, outputs = (
        {names[index]: _shape(graph.tensors[index]) for index in ends}
        for ends in (graph.inputs, graph.outputs)
    )
    subgraph = {
        "input_tensor_metadata": _inputs(inputs, metadata),
        "output_tensor_metadata": _outputs(outputs, metadata),
    }
    values = {
        "name": record["model"],
        "description": metadata.description,
        "subgraph_metadata": [subgraph],
        "author": metadata.author,
        "license": metadata.license,
        "min_parser_version": _MIN_PARSER_VERSION,
    }
    return {name: value for name, value in values.items() if value}


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(map(int, tensor.shape))


def _inputs(shapes: dict[str, tuple[int, ...]], metadata: Metadata) -> list[dict[str, Any]]:
    images = {
        name for name, shape in shapes.items() if len(shape) == 4 and shape[-1] in _IMAGE_COLORS
    }
    tensors = []
    for name, shape in shapes.items():
        content: dict[str, Any] = {"is": "FeatureProperties"}
        if name in images:
            content = {"is": "ImageProperties", "color_space": _IMAGE_COLORS[shape[-1]]}
        tensor: dict[str, Any] = {"name": name, "content": {"content_properties": content}}
        # Of several inputs, the normalization of pixels is that of the images.
        if metadata.normalization is not None and (not images or name in images):
            mean, std = metadata.normalization
            if {len(mean), len(std)} <= {1, *shape[-1:]}:
                options = {"is": "NormalizationOptions", "mean": mean, "std": std}
                tensor["process_units"] = [{"options": options}]
        tensors.append(tensor)
    return tensors


def _outputs(shapes: dict[str, tuple[int, ...]], metadata: Metadata) -> list[dict[str, Any]]:
    tensors = []
    labelled = False
    for name, shape in shapes.items():
        content = {"content_properties": {"is": "FeatureProperties"}}
        tensor: dict[str, Any] = {"name": name, "content": content}
        fits = metadata.labels is not None and shape[-1:] == (len(metadata.labels),)
        if fits and not labelled:
            labelled = True
            kind = metadata_schema.LABELS_OF_AN_AXIS
            tensor["associated_files"] = [{"name": LABELS_FILE, "type": kind}]
        tensors.append(tensor)
    return tensors

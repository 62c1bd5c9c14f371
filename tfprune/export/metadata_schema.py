"""TFLite Metadata, the schema that Android's and MediaPipe's readers know, without its packages.

`tflite-support` needs protobuf below 4 and MediaPipe flatbuffers below 26 and absl 2.3; neither
installs beside TensorFlow 2.21 as it is pinned here. The format is a small flatbuffer whose tables
only ever grow at the end, so its tables are listed here, as far as they are used, and one function
writes and one reads what the list says.

Source: metadata_schema.fbs of MediaPipe and TFLite Support, file identifier "M001".
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

NAME = b"TFLITE_METADATA"
"""Name of the metadata entry of a model that holds the flatbuffer."""

IDENTIFIER = b"M001"
LABELS_OF_AN_AXIS = 2
RGB, GRAYSCALE = 1, 2

# Fields in the order of the schema: `[Table]` is a vector of tables, a tuple is a union, whose
# tables are numbered from 1 and which takes two fields, the number and the table. None is a field
# that is passed over.
_TABLES: dict[str, dict[str, Any]] = {
    "ModelMetadata": {
        "name": "string",
        "description": "string",
        "version": "string",
        "subgraph_metadata": ["SubGraphMetadata"],
        "author": "string",
        "license": "string",
        "associated_files": ["AssociatedFile"],
        "min_parser_version": "string",
    },
    "SubGraphMetadata": {
        "name": "string",
        "description": "string",
        "input_tensor_metadata": ["TensorMetadata"],
        "output_tensor_metadata": ["TensorMetadata"],
    },
    "TensorMetadata": {
        "name": "string",
        "description": "string",
        "dimension_names": None,
        "content": "Content",
        "process_units": ["ProcessUnit"],
        "stats": None,
        "associated_files": ["AssociatedFile"],
    },
    "Content": {"content_properties": ("FeatureProperties", "ImageProperties")},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": "byte"},
    "ProcessUnit": {"options": ("NormalizationOptions",)},
    "NormalizationOptions": {"mean": "floats", "std": "floats"},
    "AssociatedFile": {"name": "string", "description": "string", "type": "byte"},
}


def write(values: dict[str, Any]) -> bytes:
    """Return the flatbuffer of a `ModelMetadata`.

    Args:
        values: its fields; nested tables are dicts too, and the table of a union is named in its
            dict by `"is"`.

    Example:
        >>> read(write({"name": "net", "subgraph_metadata": [{"name": "main"}]}))
        {'name': 'net', 'subgraph_metadata': [{'name': 'main'}]}
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write_table(builder, "ModelMetadata", values), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def read(content: bytes) -> dict[str, Any]:
    """Return the fields of a `ModelMetadata` that are listed here and set."""
    root = int.from_bytes(content[:4], "little")
    return _read_table(Table(content, root), "ModelMetadata")


def _write_table(builder: flatbuffers.Builder, name: str, values: dict[str, Any]) -> int:
    fields = []
    slot = 0
    for field, kind in _TABLES[name].items():
        value = values.get(field)
        if isinstance(kind, tuple):
            if value is not None:
                fields.append((slot, "byte", 1 + kind.index(value["is"])))
                fields.append((slot + 1, "offset", _write_table(builder, value["is"], value)))
            slot += 2
            continue
        if value is not None:
            if kind == "byte":
                fields.append((slot, "byte", value))
            else:
                fields.append((slot, "offset", _write_value(builder, kind, value)))
        slot += 1
    builder.StartObject(slot)
    for slot, kind, value in fields:
        if kind == "byte":
            builder.PrependUint8Slot(slot, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()


def _write_value(builder: flatbuffers.Builder, kind: Any, value: Any) -> int:
    if kind == "string":
        return builder.CreateString(value)
    if kind == "floats":
        return builder.CreateNumpyVector(np.asarray(value, np.float32))
    if isinstance(kind, str):
        return _write_table(builder, kind, value)
    offsets = [_write_table(builder, kind[0], entry) for entry in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _read_table(table: Table, name: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    slot = 0
    for field, kind in _TABLES[name].items():
        place = table.Offset(4 + 2 * slot)
        if isinstance(kind, tuple):
            number = table.Get(number_types.Uint8Flags, place + table.Pos) if place else 0
            if 1 <= number <= len(kind):  # A union may hold a table that is not listed.
                inner = table.Indirect(table.Offset(4 + 2 * (slot + 1)) + table.Pos)
                member = kind[number - 1]
                values[field] = {"is": member, **_read_table(Table(table.Bytes, inner), member)}
            slot += 2
            continue
        if place and kind is not None:
            values[field] = _read_value(table, place, kind)
        slot += 1
    return values


def _read_value(table: Table, place: int, kind: Any) -> Any:
    if kind == "byte":
        return table.Get(number_types.Uint8Flags, place + table.Pos)
    if kind == "string":
        return table.String(place + table.Pos).decode("utf-8", errors="replace")
    if isinstance(kind, str) and kind != "floats":
        return _read_table(Table(table.Bytes, table.Indirect(place + table.Pos)), kind)
    start, length = table.Vector(place), table.VectorLen(place)
    if kind == "floats":
        return np.frombuffer(table.Bytes, "<f4", length, start).tolist()
    entries = (table.Indirect(start + 4 * index) for index in range(length))
    return [_read_table(Table(table.Bytes, entry), kind[0]) for entry in entries]

"""TFLite files as objects that can be changed: loaded from bytes, and packed again."""

from __future__ import annotations

from typing import Any

import flatbuffers


class _AlignedBuilder(flatbuffers.Builder):
    """Puts bytes at multiples of 16, as the schema demands of the data of a buffer.

    The generated code for Python does not, and runtimes read weights where they lie.
    """

    def StartVector(self, elemSize, numElems, alignment):  # noqa: N802, N803 - as flatbuffers has it
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


def load_model(content: bytes) -> Any:
    """Return a TFLite file as a `ModelT` of the schema."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def pack_model(model: Any) -> bytes:
    """Return the TFLite file of a `ModelT`."""
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = _AlignedBuilder(size + (1 << 16))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())

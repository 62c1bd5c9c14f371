"""The TFLite formats, for phones, browsers and small machines.

| format | weights | activations | model inputs and outputs |
|---|---|---|---|
| `tflite` | float32 | float32 | float32 |
| `tflite_float16` | float16 | float32 | float32 |
| `tflite_dynamic` | int8 from 1,024 values on | float32, int8 inside of kernels | float32 |
| `tflite_int8` | int8 | int8, calibrated | float32 |
| `tflite_int16x8` | int8 | int16, calibrated | float32 |

Only ops that LiteRT has built in are allowed: an artifact that needs TensorFlow's own kernels does
not run on a phone, so it is refused and not written. Inputs and outputs stay float32 (integers
stay integers), so that all formats are drop-in replacements of each other; the conversion at the
border costs one op.

The two float formats are written for XNNPACK's sparse mode where that helps: see
`tfprune.export.tflite_sparse`. The file `tflite_int8` is sparse-encoded where that is smaller after
gzip; `tflite_dynamic` never, since LiteRT refuses to load that.
"""

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError, UnsupportedModelError
from tfprune.export.calibration import convert_calibrated
from tfprune.export.formats import Source, Tolerance, register_format
from tfprune.export.runners import LiteRtRunner
from tfprune.export.sparse_runtime.encoding import choose_encoding
from tfprune.export.tflite_sparse import write_for_sparse_mode


def stored_weights(path: Path) -> Iterator[np.ndarray]:
    """Yield the constant float and int8 tensors of a TFLite file with at least two axes.

    Integers are returned relative to their zero point, so that 0 is zero. Of a tensor in the sparse
    encoding come the values, flat and in no order, with as many zeros as it stands for.
    """
    from ai_edge_litert import schema_py_generated as schema

    dtypes = {
        schema.TensorType.FLOAT32: np.float32,
        schema.TensorType.FLOAT16: np.float16,
        schema.TensorType.INT8: np.int8,
    }
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    seen = set()
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for tensor in map(graph.Tensors, range(graph.TensorsLength())):
            buffer = model.Buffers(tensor.Buffer())
            if (
                tensor.Buffer() in seen  # Tensors that share a buffer are stored once.
                or tensor.ShapeLength() < 2
                or tensor.Type() not in dtypes
                or not buffer.DataLength()
            ):
                continue
            seen.add(tensor.Buffer())
            values = buffer.DataAsNumpy().view(dtypes[tensor.Type()])
            if tensor.Sparsity() is not None:
                zeros = np.zeros(int(np.prod(tensor.ShapeAsNumpy())) - values.size, values.dtype)
                values = np.concatenate([values, zeros])
            yield values if values.dtype != np.int8 else values.astype(int) - _zero_point(tensor)


def _zero_point(tensor: Any) -> int:
    quantization = tensor.Quantization()
    # Weights have one zero point for all channels (0, by the specification of TFLite).
    if quantization is None or not quantization.ZeroPointLength():
        return 0
    return quantization.ZeroPoint(0)


def convert(
    saved_model: Path, *, optimize: bool = False, float16: bool = False, sparse: bool = False
) -> bytes:
    """Convert a SavedModel to a TFLite file.

    Args:
        saved_model: its folder.
        optimize: whether to store weights in fewer bits.
        float16: whether that is float16; else int8 (dynamic range).
        sparse: whether to store sparse weights in the sparse encoding.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if optimize:
        converter.optimizations.add(tf.lite.Optimize.DEFAULT)
    if sparse:
        converter.optimizations.add(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    if float16:
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _convert_floats(source: Source, path: Path, float16: bool) -> str:
    convert_as = functools.partial(convert, optimize=float16, float16=float16)
    with explained(source, path):
        if source.sparse_runtime != "off":
            return write_for_sparse_mode(source, path, convert_as)
        path.write_bytes(convert_as(source.saved_model))
    return ""


def _convert_to_integers(source: Source, path: Path, ops: str) -> None:
    size = source.signature.batch_size or 1
    with explained(source, path, integers=True):
        convert_calibrated(source.saved_model, path, source.representative, size, ops)


@contextlib.contextmanager
def explained(source: Source, path: Path, integers: bool = False) -> Iterator[None]:
    """Turn the errors of the converter, which are pages of MLIR, into one that says what to do."""
    try:
        yield
    except (TfpruneError, OSError):
        raise
    except Exception as error:
        raise UnsupportedModelError(_explain(source, path, error, integers)) from error


def _explain(source: Source, path: Path, error: Exception, integers: bool) -> str:
    text = str(error)
    remedy = "Export this model with the formats that can hold it."
    missing = re.findall(r"TF Select ops: (.+)|'tf\.(TensorList\w+)' op requires", text)
    if missing:
        ops = ", ".join(sorted({op for pair in missing for op in pair if op}))
        remedy = f"It needs TensorFlow ops that LiteRT does not have ({ops})."
        if source.signature.batch_size is None:
            remedy += " Recurrent layers need a fixed batch: pass batch_size=1."
    elif integers:
        remedy = "An op of the model has no such integer kernel: use tflite_dynamic instead."
    # The last Python error names the op; MLIR errors come with pages of locations.
    lines = text.strip().splitlines() or [repr(error)]
    errors = [line for line in lines if re.match(r"\S*Error: ", line)]
    errors = errors[-1:] or [line for line in lines if "error:" in line] or lines[:1]
    reason = errors[0][:300]
    return (
        f"The model {source.model.name!r} cannot be converted to {path.name}. {remedy} ({reason})"
    )


@register_format(
    "tflite",
    filename="model.tflite",
    tolerance=Tolerance(1e-4),
    runner=LiteRtRunner,
    stored_weights=stored_weights,
)
def _write_float32(source: Source, path: Path) -> str:
    return _convert_floats(source, path, float16=False)


@register_format(
    "tflite_float16",
    filename="model_float16.tflite",
    tolerance=Tolerance(1e-2),
    runner=LiteRtRunner,
    stored_weights=stored_weights,
)
def _write_float16(source: Source, path: Path) -> str:
    return _convert_floats(source, path, float16=True)


@register_format(
    "tflite_dynamic",
    filename="model_dynamic.tflite",
    tolerance=Tolerance(0.1, 0.95),
    runner=LiteRtRunner,
    stored_weights=stored_weights,
)
def _write_dynamic(source: Source, path: Path) -> str:
    with explained(source, path):
        path.write_bytes(convert(source.saved_model, optimize=True))
    return ""


@register_format(
    "tflite_int8",
    filename="model_int8.tflite",
    tolerance=Tolerance(0.3, 0.95),
    runner=LiteRtRunner,
    stored_weights=stored_weights,
    needs_representative_data=True,
)
def _write_int8(source: Source, path: Path) -> str:
    _convert_to_integers(source, path, "TFLITE_BUILTINS_INT8")
    if source.sparse_runtime == "off":
        return ""
    size = source.signature.batch_size or 1
    always = source.sparse_runtime == "on"
    return choose_encoding(path, source.representative, size, always=always)


@register_format(
    "tflite_int16x8",
    filename="model_int16x8.tflite",
    tolerance=Tolerance(0.1, 0.95),
    runner=LiteRtRunner,
    stored_weights=stored_weights,
    needs_representative_data=True,
)
def _write_int16x8(source: Source, path: Path) -> str:
    ops = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
    _convert_to_integers(source, path, ops)
    return ""

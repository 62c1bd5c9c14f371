"""Packed SavedModels: small on disk, ordinary dense variables once loaded.

A SavedModel stores a zero in as many bytes as any other weight, and nothing that serves one reads a
compressed file. Here the weights are stored as `tfprune.export.packing` packs them, in string
variables, and each becomes a dense variable in the initialization that every loader runs after it
has restored the variables: `tf.saved_model.load`, the loader of TensorFlow 1, and the C++ one
behind TensorFlow Serving and the C API. Only stock ops are used, and a call of the model computes
what it did before.

`assets.extra/packed.json`, which loaders pass over, says which weight is packed how.
"""

import itertools
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfprune.errors import ArtifactError, InvalidArgumentError, UnsupportedModelError
from tfprune.export.packing import (
    SKIP,
    WORDS,
    PackedArray,
    choose_form,
    is_raw,
    pack,
    quantize,
    unpack,
)

PRECISIONS = ("exact", "float16", "int8")
"""What is stored of a float32 weight: all of it, 16 bits, or 8 bits and a scale per channel."""

INDEX_FILE = Path("assets.extra", "packed.json")

# Smaller weights stay as they are: the ops that unpack them take as many bytes as they save.
_MIN_BYTES = 1 << 11
# So that groups are unpacked side by side, in memory that is used again.
_MAX_GROUP_ELEMENTS = 1 << 21
_RUN = 32
# Its public subclass `TrackableResource` would destroy what it did not create.
_CapturableResource = tf.saved_model.experimental.TrackableResource.__mro__[1]


@dataclass(frozen=True)
class PackedGroup:
    """Weights of one form, packed one behind the other: loading takes a few ops per group.

    Args:
        names: names of the weights.
        shapes: their shapes.
        scales: what each is to be multiplied by, or None.
        array: all of them, flat.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    scales: tuple[np.ndarray | None, ...]
    array: PackedArray

    @property
    def sizes(self) -> list[int]:
        """Elements of each weight."""
        return [int(np.prod(shape)) for shape in self.shapes]


def pack_saved_model(
    source: str | os.PathLike, target: str | os.PathLike, precision: str = "exact"
) -> list[PackedGroup]:
    """Write a packed copy of a SavedModel of anyone's making.

    All signatures are kept, and functions of the loaded object such as `serve`. Weights of less
    than 2 kB stay as they are, and so do all where packing saves nothing.

    Args:
        source: folder of a SavedModel of TensorFlow 2.
        target: folder to create.
        precision: one of `PRECISIONS`. Whatever is stored, the variables have the original dtype.

    Returns:
        What was packed.

    Raises:
        ArtifactError: there is no SavedModel at `source`, or something is at `target` already.
        UnsupportedModelError: the model has state other than variables, such as lookup tables.
        InvalidArgumentError: the precision is unknown, or a weight is beyond float16's range.

    Example:
        >>> import keras, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
        >>> model.layers[0].set_weights([np.eye(64), np.zeros(64)])
        >>> model.export(folder / "dense", verbose=False)
        >>> packed = pack_saved_model(folder / "dense", folder / "packed")
        >>> [group.array.nbytes < 300 for group in packed]
        [True]
    """
    source, target = Path(source), Path(target)
    if precision not in PRECISIONS:
        raise InvalidArgumentError(
            f"The precision of packed weights must be one of {PRECISIONS}. Received: {precision!r}"
        )
    if not (source / "saved_model.pb").is_file():
        raise ArtifactError(f"{source} is not a SavedModel: there is no saved_model.pb in it.")
    if os.path.lexists(target):
        raise ArtifactError(f"{target} exists already: pass the path of a folder to create.")
    loaded = tf.saved_model.load(str(source))
    functions = _functions(loaded)
    variables = _variables(loaded, functions)
    groups = [
        group
        for names in _grouped(variables, precision)
        if (group := _packed({name: variables[name] for name in names}, precision))
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    folder = staging / target.name  # Made by TensorFlow, with the permissions of the process.
    try:
        root = _root(functions, variables, groups)
        tf.saved_model.save(root, str(folder), signatures=dict(loaded.signatures))
        (folder / INDEX_FILE).parent.mkdir(exist_ok=True)
        (folder / INDEX_FILE).write_text(_index(groups), encoding="utf-8")
        folder.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return groups


def packed_weights(path: Path) -> Iterator[np.ndarray]:
    """Yield the weights that are packed in a SavedModel, as they are stored; none if none are."""
    index = path / INDEX_FILE
    if not index.is_file():
        return
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    for number, entry in enumerate(json.loads(index.read_text(encoding="utf-8"))["groups"]):
        streams = reader.get_tensor(f"packed/{number}/.ATTRIBUTES/VARIABLE_VALUE")
        sizes = [int(np.prod(shape)) for shape in entry["shapes"]]
        form = (entry["dtype"], entry["positions"], entry["values"], entry["count"])
        flat = unpack(PackedArray((sum(sizes),), *form, tuple(streams)))
        for part, shape in zip(np.split(flat, np.cumsum(sizes)[:-1]), entry["shapes"], strict=True):
            yield part.reshape(shape)


class _Unpacker(_CapturableResource):
    """Unpacks all weights into their variables when a model is initialized."""

    def __init__(self, groups: list[tuple[list[tf.Variable], tf.Variable, PackedGroup]]):
        super().__init__()
        self._groups = groups

    def _create_resource(self) -> tf.Tensor:
        # What it is does not matter: a loader initializes what it can create.
        return tf.raw_ops.VarHandleOp(dtype=tf.bool, shape=(), shared_name="tfprune_unpacker")

    def _initialize(self) -> None:
        for variables, streams, group in self._groups:
            parts = tf.split(_unpacked(streams, group), group.sizes)
            for variable, part, scale in zip(variables, parts, group.scales, strict=True):
                _assign(variable, part, scale)


def _assign(variable: tf.Variable, values: tf.Tensor, scale: np.ndarray | None) -> None:
    """Set a variable to flat values; an op takes time to load, so there is none without effect."""
    if len(variable.shape) != 1:
        values = tf.reshape(values, variable.shape)
    if values.dtype != variable.dtype:
        values = tf.cast(values, variable.dtype)
    if scale is not None:
        values = values * scale
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=values)


def _functions(loaded: Any) -> dict[str, Any]:
    """Return the functions that a loaded object has besides its signatures, by attribute."""
    return {
        name: value
        for name, value in vars(loaded).items()
        if not name.startswith("_") and hasattr(value, "concrete_functions")
    }


def _variables(loaded: Any, functions: dict[str, Any]) -> dict[str, tf.Variable]:
    """Return the variables that the functions of a loaded object use, by a name of their own."""
    concrete = [*loaded.signatures.values()]
    for function in functions.values():
        concrete.extend(function.concrete_functions)
    found = {id(v.handle): v for function in concrete for v in function.variables}
    others = {
        id(tensor)
        for function in concrete
        for tensor in function.captured_inputs
        if tensor.dtype == tf.resource and id(tensor) not in found
    }
    if others:
        raise UnsupportedModelError(
            f"This SavedModel has state other than variables, such as lookup tables ({len(others)} "
            "of them), and would lose it when packed: serve it as it is."
        )
    names: dict[str, tf.Variable] = {}
    for variable in found.values():
        name = variable.name.removesuffix(":0")
        names[f"{name}_{len(names)}" if name in names else name] = variable
    return names


def _grouped(variables: dict[str, tf.Variable], precision: str) -> Iterator[list[str]]:
    """Yield names of weights that are packed together."""
    groups: dict[Any, list[str]] = {}
    elements: dict[Any, int] = {}
    for name, variable in variables.items():
        dtype = np.dtype(variable.dtype.as_numpy_dtype)
        size = variable.shape.num_elements()
        if dtype.kind not in "fiu" or size * dtype.itemsize < _MIN_BYTES:
            continue
        array, _ = _stored(variable, precision)
        form = choose_form(array)
        key = (array.dtype.name, *form, name if form[1] == "codebook" else None)
        if elements.get(key, 0) + size > _MAX_GROUP_ELEMENTS and key in groups:
            yield groups.pop(key)
            elements[key] = 0
        groups.setdefault(key, []).append(name)
        elements[key] = elements.get(key, 0) + size
    yield from groups.values()


def _packed(variables: dict[str, tf.Variable], precision: str) -> PackedGroup | None:
    """Pack weights of one form; None if that saves nothing."""
    arrays, scales = zip(*(_stored(v, precision) for v in variables.values()), strict=True)
    # The first decides for all: they were grouped by form.
    packed = pack(np.concatenate([array.reshape(-1) for array in arrays]), choose_form(arrays[0]))
    if packed.nbytes >= sum(v.numpy().nbytes for v in variables.values()):
        return None
    shapes = tuple(array.shape for array in arrays)
    return PackedGroup(tuple(variables), shapes, tuple(scales), packed)


def _stored(variable: tf.Variable, precision: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values of a weight to store, and what they are to be multiplied by."""
    array = variable.numpy()
    if precision == "exact" or array.dtype != np.float32 or array.ndim < 2:
        return array, None
    if precision == "int8":
        return quantize(array)
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise InvalidArgumentError(
            f"{variable.name} has values of up to {np.abs(array).max():.3g}, beyond the range of "
            "float16 (65504): pack it with full precision."
        )
    return half, None


def _root(
    functions: dict[str, Any], variables: dict[str, tf.Variable], groups: list[PackedGroup]
) -> tf.Module:
    """Return what is to be saved: functions, variables, and what fills the packed ones."""
    root = tf.Module()
    for name, function in functions.items():
        setattr(root, name, function)
    root.weights = list(variables.values())
    root.packed = [tf.Variable(group.array.streams, dtype=tf.string) for group in groups]
    filled = [[variables[name] for name in group.names] for group in groups]
    for variable in itertools.chain(*filled):
        _leave_unsaved(variable)
    root.unpacker = _Unpacker(list(zip(filled, root.packed, groups, strict=True)))
    return root


def _leave_unsaved(variable: tf.Variable) -> None:
    """Keep the values of a variable out of the file: loaders create it, and do not restore it."""
    export = variable._export_to_saved_model_graph

    def export_unsaved(object_map: Any, *arguments: Any, **options: Any) -> Any:
        exported = export(object_map, *arguments, **options)
        # The graph that is written has a copy of the variable.
        object_map[variable]._serialize_to_tensors = dict
        return exported

    variable._serialize_to_tensors = dict
    variable._export_to_saved_model_graph = export_unsaved


def _unpacked(streams: tf.Tensor, group: PackedGroup) -> tf.Tensor:
    """Return all weights of a group, flat: `packing.unpack` in stock ops."""
    array = group.array
    dtype = tf.as_dtype(array.dtype)
    parts = tf.unstack(streams, num=len(array.streams))
    if array.positions == "all":
        return _unpacked_values(parts, array)
    octets = zlib.decompress(array.streams[0])
    codes = _decoded(_inflated(parts[0]), tf.uint8)
    if array.positions == "mask":
        kept = _set_bits(codes)
    else:
        kept = _running_sums(codes, len(octets), start=-1)
        if SKIP in octets:
            kept = tf.gather(kept, tf.where(codes != SKIP))
    # Not `scatter_nd`, which adds, makes 0.0 of -0.0, and takes ten times as long.
    return tf.raw_ops.SparseToDense(
        sparse_indices=kept,
        output_shape=tf.constant(array.shape, tf.int64),
        sparse_values=_unpacked_values(parts[1:], array),
        default_value=tf.zeros((), dtype),
        validate_indices=False,
    )


def _set_bits(codes: tf.Tensor) -> tf.Tensor:
    """Return the indices of the bits that are set in octets, int64 `(bits, 1)`."""
    octets, shifts = tf.range(256)[:, None], tf.range(7, -1, -1)
    bits = tf.cast(tf.bitwise.right_shift(octets, shifts) & 1, tf.bool)
    return tf.where(tf.reshape(tf.gather(bits, tf.cast(codes, tf.int32)), [-1]))


def _running_sums(steps: tf.Tensor, count: int, start: int) -> tf.Tensor:
    """Return `start + tf.cumsum(steps)` of `count` octets, int64, in a third of its time.

    Runs of 32 are summed by a product with a triangle of ones, on all cores and exactly: the sums
    are far below 2**24.
    """
    runs = -(-count // _RUN)
    padded = tf.pad(steps, [[0, runs * _RUN - count]])
    triangle = tf.linalg.band_part(tf.ones((_RUN, _RUN)), 0, -1)
    sums = tf.reshape(tf.cast(padded, tf.float32), (runs, _RUN)) @ triangle
    sums = tf.cast(sums, tf.int64)
    before = tf.cumsum(tf.slice(sums, [0, _RUN - 1], [runs, 1]), exclusive=True) + start
    return tf.slice(tf.reshape(sums + before, [-1]), [0], [count])


def _unpacked_values(streams: list[tf.Tensor], array: PackedArray) -> tf.Tensor:
    """Return the values, of the array's dtype."""
    dtype = tf.as_dtype(array.dtype)
    if array.values == "codebook":
        indices = tf.cast(_decoded(_inflated(streams[0]), tf.uint8), tf.int32)
        return tf.gather(_decoded(_inflated(streams[1]), dtype), indices)
    stored = array.streams[-len(streams) :]
    bits = None
    for data, stream, size in zip(stored, streams, WORDS[dtype.size], strict=True):
        octets = stream if is_raw(data, array.count, size) else _inflated(stream)
        word = _decoded(octets, tf.as_dtype(f"uint{8 * size}"))
        bits = word if bits is None else _joined(bits, word)
        if bits.dtype == tf.uint16 and dtype.is_floating:
            bits = _turned_back(bits)
    return tf.bitcast(bits, dtype)


def _inflated(stream: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_compressed(stream, compression_type="ZLIB")


def _decoded(octets: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    # The op does not know all dtypes.
    known = {1: tf.uint8, 2: tf.uint16, 4: tf.int32, 8: tf.int64}[dtype.size]
    values = tf.io.decode_raw(octets, known)
    return values if known == dtype else tf.bitcast(values, dtype)


def _joined(upper: tf.Tensor, lower: tf.Tensor) -> tf.Tensor:
    """Return words of twice the size."""
    wide = tf.as_dtype(f"uint{16 * upper.dtype.size}")
    shift = tf.constant(8 * upper.dtype.size, wide)
    upper = tf.bitwise.left_shift(tf.cast(upper, wide), shift)
    return tf.bitwise.bitwise_or(upper, tf.cast(lower, wide))


def _turned_back(bits: tf.Tensor) -> tf.Tensor:
    """Return 16-bit words turned right by one."""
    one, rest = tf.constant(1, tf.uint16), tf.constant(15, tf.uint16)
    return tf.bitwise.bitwise_or(
        tf.bitwise.right_shift(bits, one), tf.bitwise.left_shift(bits, rest)
    )


def _index(groups: list[PackedGroup]) -> str:
    entries = [
        {
            "names": group.names,
            "shapes": group.shapes,
            "dtype": group.array.dtype,
            "positions": group.array.positions,
            "values": group.array.values,
            "count": group.array.count,
            "bytes": group.array.nbytes,
        }
        for group in groups
    ]
    return json.dumps({"tfprune_packed": 1, "groups": entries}, indent=1) + "\n"

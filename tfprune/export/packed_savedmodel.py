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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfprune.errors import ArtifactError, InvalidArgumentError, UnsupportedModelError
from tfprune.export.packing import SKIP, PackedArray, choose_form, pack, quantize, unpack

PRECISIONS = ("exact", "float16", "int8")
"""What is stored of a float32 weight: all of it, 16 bits, or 8 bits and a scale per channel."""

INDEX_FILE = Path("assets.extra", "packed.json")

# Smaller weights stay as they are: what unpacks them takes time to load.
_MIN_BYTES = 1 << 14
_MAX_GROUP_ELEMENTS = 1 << 23
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
    than 16 kB stay as they are, and so do all where packing saves nothing.

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
        form = (entry["dtype"], entry["positions"], entry["values"])
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
                values = tf.cast(tf.reshape(part, variable.shape), variable.dtype)
                variable.assign(values if scale is None else values * scale)


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
    decoded = tf.unstack(
        tf.io.decode_compressed(streams, compression_type="ZLIB"), num=len(array.streams)
    )
    codes = None if array.positions == "all" else tf.io.decode_raw(decoded.pop(0), tf.uint8)
    values = tf.bitcast(_unpacked_bits(decoded, array.values, dtype), dtype)
    if codes is None:
        return values
    zeros = tf.zeros(array.shape, dtype)
    # Not `scatter_nd`, which adds, and makes 0.0 of -0.0.
    return tf.tensor_scatter_nd_update(zeros, _unpacked_positions(codes, array.positions), values)


def _unpacked_positions(codes: tf.Tensor, positions: str) -> tf.Tensor:
    """Return the indices of the values, int64 `(values, 1)`."""
    if positions == "mask":
        shifts = tf.constant([*range(7, -1, -1)], tf.uint8)
        bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(codes[:, None], shifts), 1)
        return tf.where(tf.reshape(bits, [-1]))
    is_value = codes != SKIP
    steps = tf.cast(codes, tf.int64) + tf.cast(is_value, tf.int64)
    kept = tf.cumsum(steps) - 1
    # Most weights have no gap so long, and so nothing to leave out.
    kept = tf.cond(tf.reduce_all(is_value), lambda: kept, lambda: tf.boolean_mask(kept, is_value))
    return kept[:, None]


def _unpacked_bits(streams: list[tf.Tensor], values: str, dtype: tf.DType) -> tf.Tensor:
    """Return the bits of the values as unsigned integers."""
    unsigned = tf.as_dtype(f"uint{8 * dtype.size}")
    if values == "codebook":
        indices = tf.cast(tf.io.decode_raw(streams[0], tf.uint8), tf.int32)
        return tf.gather(_joined(tf.io.decode_raw(streams[1], tf.uint8), unsigned), indices)
    planes = tf.io.decode_raw(tf.stack(streams), tf.uint8)
    bits = _joined(tf.reshape(tf.transpose(planes), [-1]), unsigned)
    if not dtype.is_floating:
        return bits
    one, rest = (tf.constant(count, unsigned) for count in (1, 8 * dtype.size - 1))
    return tf.bitwise.bitwise_or(
        tf.bitwise.right_shift(bits, one), tf.bitwise.left_shift(bits, rest)
    )


def _joined(octets: tf.Tensor, unsigned: tf.DType) -> tf.Tensor:
    if unsigned.size == 1:
        return octets
    return tf.bitcast(tf.reshape(octets, [-1, unsigned.size]), unsigned)


def _index(groups: list[PackedGroup]) -> str:
    entries = [
        {
            "names": group.names,
            "shapes": group.shapes,
            "dtype": group.array.dtype,
            "positions": group.array.positions,
            "values": group.array.values,
            "bytes": group.array.nbytes,
        }
        for group in groups
    ]
    return json.dumps({"tfprune_packed": 1, "groups": entries}, indent=1) + "\n"

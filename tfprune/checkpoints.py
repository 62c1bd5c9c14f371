"""`save_packed` and `load_model`: Keras files in the bytes that a sparse model needs.

A packed file is a `.keras` or `.weights.h5` file whose arrays of weights are stored as
`tfprune.export.packing` packs them; all else in it is as Keras wrote it: configuration, optimizer
state, masks. Zipping a Keras file does less: zeros and values share bytes there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

import h5py
import keras
import numpy as np

from tfprune.errors import ArtifactError, InvalidArgumentError
from tfprune.export.packing import PackedArray, pack, unpack
from tfprune.model_checks import check_layer

_WEIGHTS = "model.weights.h5"
_PACKED_WEIGHTS = "model.weights.packed.h5"
"""The entry of the archive; under its own name Keras would take it for plain weights."""
_FORM = "tfprune_packed"
_DAMAGE = (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile, zlib.error)
# Below this, the description takes more bytes than packing saves.
_MIN_BYTES = 1024


def save_packed(model: keras.Model, path: str | os.PathLike) -> None:
    """Save a model, bit for bit, in the bytes that its zeros and values need.

    At every moment there is a whole file at `path`, the former one or the new one.

    Args:
        model: a built model, pruned or not.
        path: `*.keras` for the whole model, `*.weights.h5` for the weights alone. `load_model` and
            `load_weights` read it; Keras itself does not.

    Raises:
        InvalidArgumentError: the path ends in something else.
        InvalidTypeError: `model` is no Keras model.
        ArtifactError: the file cannot be written.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
        >>> model.layers[0].set_weights([np.eye(64), np.zeros(64)])
        >>> save_packed(model, folder / "small.keras")
        >>> model.save(folder / "plain.keras")
        >>> os.path.getsize(folder / "small.keras") < os.path.getsize(folder / "plain.keras") / 2
        True
        >>> bool((load_model(folder / "small.keras").layers[0].kernel == np.eye(64)).numpy().all())
        True
    """
    check_layer(model)
    path = _checked(path)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            whole, packed = Path(folder, "plain.keras"), Path(folder, "packed")
            if path.suffix == ".keras":
                model.save(whole)
                _pack_archive(whole, packed)
            else:
                weights = Path(folder, _WEIGHTS)
                model.save_weights(weights)
                _pack_weights(weights, packed)
            packed.replace(path)
    except OSError as error:
        raise ArtifactError(f"Cannot write {path}: {error}") from error


def load_model(path: str | os.PathLike, *, compile: bool = True) -> keras.Model:
    """Load a `.keras` file, packed or not, with Keras's safe mode on.

    Args:
        path: the file.
        compile: whether to compile the model as it was when it was saved.

    Raises:
        ArtifactError: a packed file is damaged.
        ValueError: from Keras, for a file that it cannot load.
    """
    path = Path(path)
    if not _is_packed_archive(path):
        return keras.models.load_model(path, compile=compile)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "plain.keras")
        try:
            _unpack_archive(path, plain)
        except _DAMAGE as error:
            raise _damaged(path, error) from error
        return keras.models.load_model(plain, compile=compile)


def load_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Load a `.weights.h5` file, packed or not, into a model of the same structure.

    Raises:
        ArtifactError: a packed file is damaged.
        ValueError: from Keras, for a file of another model.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, _WEIGHTS)
        try:
            _unpack_weights(Path(path), plain)
        except FileNotFoundError:
            raise
        except _DAMAGE as error:
            raise _damaged(path, error) from error
        model.load_weights(plain)


def _checked(path: str | os.PathLike) -> Path:
    path = Path(path)
    if path.suffix != ".keras" and not path.name.endswith(".weights.h5"):
        raise InvalidArgumentError(
            "`path` must end in .keras for the whole model, or in .weights.h5 for its weights. "
            f"Received: {os.fspath(path)!r}"
        )
    if not path.parent.is_dir():
        raise ArtifactError(f"Cannot write {path}: {path.parent} is not a folder.")
    return path


def _is_packed_archive(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _PACKED_WEIGHTS in archive.namelist()


def _pack_archive(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as plain, zipfile.ZipFile(target, "w") as packed:
        for entry in plain.infolist():
            if entry.filename != _WEIGHTS:
                packed.writestr(entry.filename, plain.read(entry), zipfile.ZIP_DEFLATED)
                continue
            weights = target.with_name(_PACKED_WEIGHTS)
            _pack_weights(Path(plain.extract(entry, target.parent)), weights)
            packed.write(weights, _PACKED_WEIGHTS)


def _unpack_archive(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as packed, zipfile.ZipFile(target, "w") as plain:
        for entry in packed.infolist():
            with packed.open(entry) as stream:
                if entry.filename != _PACKED_WEIGHTS:
                    plain.writestr(entry.filename, stream.read())
                    continue
                weights = target.with_name(_PACKED_WEIGHTS)
                with weights.open("wb") as file:
                    shutil.copyfileobj(stream, file)
            _unpack_weights(weights, target.with_name(_WEIGHTS))
            plain.write(target.with_name(_WEIGHTS), _WEIGHTS)


def _pack_weights(source: Path, target: Path) -> None:
    """Copy an HDF5 file, its arrays packed where that saves anything."""

    def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            copied = target_file.require_group(name)
        else:
            array = item[()]
            small = item.dtype.kind not in "fiu" or array.nbytes < _MIN_BYTES
            packed = None if small else pack(array)
            if packed is None or packed.nbytes + _MIN_BYTES // 2 > array.nbytes:
                source_file.copy(item, target_file, name)
                return
            data = np.frombuffer(b"".join(packed.streams), np.uint8)
            copied = target_file.create_dataset(name, data=data)
            copied.attrs[_FORM] = _description(packed)
        copied.attrs.update(item.attrs)

    with h5py.File(source) as source_file, h5py.File(target, "w", libver="latest") as target_file:
        target_file.attrs.update(source_file.attrs)
        source_file.visititems(copy)


def _unpack_weights(source: Path, target: Path) -> None:
    def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            copied = target_file.require_group(name)
        elif _FORM in item.attrs:
            array = unpack(_described(item.attrs[_FORM], item[()].tobytes()))
            copied = target_file.create_dataset(name, data=array)
        else:
            source_file.copy(item, target_file, name)
            return
        copied.attrs.update({key: value for key, value in item.attrs.items() if key != _FORM})

    with h5py.File(source) as source_file, h5py.File(target, "w") as target_file:
        target_file.attrs.update(source_file.attrs)
        source_file.visititems(copy)


def _description(packed: PackedArray) -> str:
    return json.dumps(
        {
            "shape": packed.shape,
            "dtype": packed.dtype,
            "positions": packed.positions,
            "values": packed.values,
            "count": packed.count,
            "lengths": [len(stream) for stream in packed.streams],
        }
    )


def _described(description: str, data: bytes) -> PackedArray:
    fields = json.loads(description)
    ends = np.cumsum(fields.pop("lengths"))
    starts = [0, *ends[:-1]]
    fields["shape"] = tuple(fields["shape"])
    return PackedArray(
        **fields, streams=tuple(data[a:b] for a, b in zip(starts, ends, strict=True))
    )


def _damaged(path: str | os.PathLike, error: Exception) -> ArtifactError:
    return ArtifactError(f"{os.fspath(path)} is damaged or incomplete: {error}")

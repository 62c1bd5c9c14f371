"""Model files and array files that commands are given, with errors that fit in one line."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tfprune.errors import ArtifactError

if TYPE_CHECKING:
    import keras
    import numpy as np

MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")
"""The file formats that `load_model` reads."""


def load_model(path: Path) -> keras.Model:
    """Load a whole Keras model, packed or not, uncompiled, with Keras's safe mode on.

    Args:
        path: a `.keras`, `.h5` or `.hdf5` file.

    Raises:
        ArtifactError: there is no such file, or it holds no model that Keras can rebuild.
    """
    check_model_path(path)
    from tfprune import checkpoints

    try:
        return checkpoints.load_model(path, compile=False)
    # Keras raises whatever the damage led to: ValueError, KeyError, BadZipFile, OSError ...
    except Exception as error:
        raise ArtifactError(f"Cannot load {path}: {_loading_error(path, error)}") from error


def check_model_path(path: Path) -> None:
    """Refuse, before TensorFlow is started, a path that cannot be a model file.

    Raises:
        ArtifactError: the path is a folder, has another suffix, or does not exist.
    """
    if path.is_dir():
        raise ArtifactError(
            f"{path} is a folder. Expected a {', '.join(MODEL_SUFFIXES)} file; a SavedModel "
            "cannot be turned back into a Keras model."
        )
    if path.suffix not in MODEL_SUFFIXES:
        raise ArtifactError(
            f"{path}: unknown model format {path.suffix!r}. Expected one of "
            f"{', '.join(MODEL_SUFFIXES)}."
        )
    if not path.exists():
        raise ArtifactError(f"{path} does not exist.")


def check_output(output: Path, force: bool) -> None:
    """Refuse, before any work is done, a path that no model can be written to.

    Args:
        output: the path.
        force: whether a file there may be replaced.

    Raises:
        ArtifactError: the file exists, or its folder does not.
    """
    if output.suffix != ".keras":
        raise typer.BadParameter(f"expected a .keras file. Received: {output}.")
    if output.exists() and not force:
        raise ArtifactError(f"{output} exists. Pass --force to replace it, or another --output.")
    if not output.parent.is_dir():
        raise ArtifactError(f"{output.parent} is not a folder.")


def save_model(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file so that at every moment `path` holds a whole file or none.

    Args:
        model: the model to save.
        path: the target; its folder must exist.
    """
    aside = path.with_name(f".{path.stem}.{os.getpid()}.keras")
    try:
        model.save(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def load_arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """Read the array of a `.npy` file, or all arrays of a `.npz` file. Nothing is unpickled.

    Returns:
        One array, or the arrays by the names that they have in the `.npz` file; a single one
        comes without its name.

    Raises:
        ArtifactError: the file cannot be read as numpy data.
    """
    import numpy as np

    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            arrays = dict(content)
    # A damaged file raises ValueError, EOFError, BadZipFile or OSError, by where it is damaged.
    except Exception as error:
        raise ArtifactError(f"Cannot read {path} as numpy data: {_first_line(error)}") from error
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def _loading_error(path: Path, error: Exception) -> str:
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        return "it is damaged or incomplete: a .keras file is a zip archive."  # Keras: "not found".
    if "`Lambda` layer" in str(error):
        return (
            "it holds a Lambda layer, and no Python code from a file is run. Save the model with "
            "a layer class instead of the Lambda."
        )
    # Keras wraps the reason in advice on how to write a layer.
    _, _, reason = str(error).partition("Exception encountered: ")
    return _first_line(reason or error)


def _first_line(error: Exception | str) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

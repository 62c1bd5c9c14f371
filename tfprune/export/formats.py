"""The registry of export formats: one dict, one decorator.

A format is a name, a file name, a function that writes the artifact, a `Runner` that runs it in
the runtime it ships to, and the tolerance that it is held to. The writers register themselves in
`savedmodel.py`, `tflite.py` and `onnx.py`; a new format is one more registration.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.export.data import Samples
from tfprune.export.runners import Runner
from tfprune.export.signature import Signature


@dataclass(frozen=True)
class Tolerance:
    """How far an artifact may be from the Keras model and still be called good.

    Args:
        max_difference: largest difference of any output value, as a fraction of the largest
            absolute value of that output of the Keras model. For integer and boolean outputs, the
            fraction of values that may differ.
        min_agreement: fraction of the clear-cut verification inputs on which the largest class
            must be the one of the Keras model; None checks no agreement. See `verify.compare`.
    """

    max_difference: float
    min_agreement: float | None = None

    def __post_init__(self):
        """Check the ranges."""
        if not self.max_difference >= 0:
            raise InvalidArgumentError(
                "`max_difference` must be a number of at least 0, such as 0.01. "
                f"Received: {self.max_difference!r}."
            )
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise InvalidArgumentError(
                "`min_agreement` must be a fraction in [0, 1] or None: pass 0.95 for 95 %. "
                f"Received: {self.min_agreement!r}."
            )


@dataclass(frozen=True)
class Source:
    """What a writer starts from.

    Args:
        model: the plain Keras model.
        signature: its inputs.
        representative: calibration samples, or None.
        work: a folder for intermediate files; it is deleted before the artifacts are published.
        packed: the precision that the weights of a SavedModel are packed with, or None.
        sparse_runtime: whether float TFLite files are written for XNNPACK's sparse mode: `"auto"`,
            `"on"` or `"off"`.
    """

    model: Any
    signature: Signature
    representative: Samples | None
    work: Path
    packed: str | None = None
    sparse_runtime: str = "auto"

    @cached_property
    def saved_model(self) -> Path:
        """Folder of the SavedModel that every conversion starts from, written on first use."""
        from tfprune.export.savedmodel import write_saved_model

        path = self.work / "saved_model"
        write_saved_model(self.model, self.signature, path)
        return path

    @cached_property
    def serving_model(self) -> Path:
        """Folder of the SavedModel to serve, whose batch size is open if the model allows it."""
        from tfprune.export.savedmodel import write_saved_model

        fixed = [tensor.shape[0] for tensor in getattr(self.model, "inputs", None) or []]
        if self.signature.batch_size is None or any(fixed):
            return self.saved_model
        path = self.work / "serving_model"
        write_saved_model(self.model, replace(self.signature, batch_size=None), path)
        return path


@dataclass(frozen=True)
class Format:
    """One export format.

    Args:
        name: the name that users pass.
        filename: the file or folder inside of the export folder.
        tolerance: what the artifact is held to.
        write: writes the artifact from a `Source` to a path; returns what is to be told, or "".
        runner: loads the artifact at a path with a number of threads.
        stored_weights: yields the weight tensors that are stored in the artifact at a path.
        needs_representative_data: whether the writer calibrates on data.
        check_installed: raises if optional packages that the format needs are missing.
    """

    name: str
    filename: str
    tolerance: Tolerance
    write: Callable[[Source, Path], str]
    runner: Callable[[Path, int], Runner]
    stored_weights: Callable[[Path], Iterator[np.ndarray]]
    needs_representative_data: bool = False
    check_installed: Callable[[], None] | None = None


FORMATS: dict[str, Format] = {}
ALL_TFLITE = "tflite_all"
"""In place of a name: every TFLite format, those that are calibrated only if there is data."""


def register_format(name: str, **fields: Any) -> Callable:
    """Register the decorated function as the writer of a format.

    Args:
        name: name of the format.
        **fields: the other fields of `Format`, without `write`.

    Raises:
        InvalidArgumentError: the name is taken.
    """

    def register(write: Callable[[Source, Path], str]) -> Callable[[Source, Path], str]:
        if name in FORMATS:
            raise InvalidArgumentError(f"The export format {name!r} is registered already.")
        FORMATS[name] = Format(name=name, write=write, **fields)
        return write

    return register


def resolve_formats(formats: str | Iterable[str], has_data: bool = True) -> list[Format]:
    """Look up formats by name.

    Args:
        formats: one name or several; "tflite_all" stands for all of TFLite.
        has_data: whether there is data to calibrate with, which decides what "all" is.

    Returns:
        The formats, in the order given.

    Raises:
        InvalidArgumentError: a name is unknown or given twice, or there is none.
        InvalidTypeError: a name is not a string.
        MissingDependencyError: a format needs a package that is not installed.

    Example:
        >>> [format.filename for format in resolve_formats(["savedmodel", "tflite"])]
        ['saved_model', 'model.tflite']
    """
    # The modules register their formats when they are imported; they import this one.
    importlib.import_module("tfprune.export.savedmodel")
    importlib.import_module("tfprune.export.tflite")
    importlib.import_module("tfprune.export.onnx")
    names = [formats] if isinstance(formats, str) else list(formats)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise InvalidTypeError(f"`formats` must hold names of formats. Received: {wrong!r}.")
    names = [part for name in names for part in _expanded(name, has_data)]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise InvalidArgumentError(
            f"`formats` must name at least one of {', '.join([*FORMATS, ALL_TFLITE])}. "
            f"Received: {', '.join(map(repr, unknown)) or 'none'}. A new format is added with "
            "`tfprune.export.formats.register_format`."
        )
    if len(set(names)) < len(names):
        raise InvalidArgumentError(f"`formats` names a format twice. Received: {names!r}.")
    chosen = [FORMATS[name] for name in names]
    for fmt in chosen:
        if fmt.check_installed is not None:
            fmt.check_installed()
    return chosen


def _expanded(name: str, has_data: bool) -> list[str]:
    if name != ALL_TFLITE:
        return [name]
    return [
        fmt.name
        for fmt in FORMATS.values()
        if fmt.name.startswith("tflite") and (has_data or not fmt.needs_representative_data)
    ]

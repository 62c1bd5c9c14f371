"""`tfprune check`: whether a file runs in XNNPACK's sparse mode, and what is in the way."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfprune.export.cross_check import CrossCheck
    from tfprune.export.sparse_runtime import SparseRuntimeReport


def check(
    path: Path, input_shape: tuple[int, ...] | dict | None, runtimes: str | list[str] | None
) -> tuple[SparseRuntimeReport, CrossCheck | None]:
    """Check a `.tflite` file as it is, or what a Keras file becomes when it is exported.

    Args:
        path: the file.
        input_shape: sizes that a Keras model leaves open.
        runtimes: where it is also run; None for nowhere.
    """
    from dataclasses import replace

    from tfprune.export.cross_check import cross_check
    from tfprune.export.sparse_runtime import check_file

    with _tflite_file(path, input_shape) as file:
        report = replace(check_file(file), file=str(path))
        return report, None if runtimes is None else cross_check(file, runtimes)


@contextlib.contextmanager
def _tflite_file(path: Path, input_shape: tuple[int, ...] | dict | None) -> Iterator[Path]:
    if path.suffix == ".tflite":
        yield path
        return
    from tfprune.cli.files import load_model
    from tfprune.export import export_model

    with tempfile.TemporaryDirectory() as folder:
        report = export_model(
            load_model(path), folder + "/out", "tflite", input_shape=input_shape, runtimes="native"
        )
        yield report.path("tflite")

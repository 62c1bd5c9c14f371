"""`tfprune check`: whether a file runs in XNNPACK's sparse mode, and what is in the way."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfprune.export.sparse_runtime import SparseRuntimeReport


def check(path: Path, input_shape: tuple[int, ...] | dict | None) -> SparseRuntimeReport:
    """Check a `.tflite` file as it is, or what a Keras file becomes when it is exported."""
    from tfprune.export.sparse_runtime import check_file

    if path.suffix == ".tflite":
        return check_file(path)
    from dataclasses import replace

    from tfprune.cli.files import load_model
    from tfprune.export import export_model

    with tempfile.TemporaryDirectory() as folder:
        report = export_model(load_model(path), folder + "/out", "tflite", input_shape=input_shape)
        return replace(check_file(report.path("tflite")), file=str(path))

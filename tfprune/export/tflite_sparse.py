"""The sparse TFLite formats: for XNNPACK's sparse mode on phones and in browsers.

A model goes there as it is, or in the first rewritten form (`sparse_runtime/rewrites.py`) that fits
the rules of that mode; and if none does, as a dense file with the reason. A file that the static
check does not pass is never sparse-encoded: it may be right on x86 and compute garbage on a phone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfprune.errors import UnsupportedModelError
from tfprune.export.data import random_samples
from tfprune.export.formats import Source, Tolerance, register_format
from tfprune.export.runners import LiteRtRunner, NoAvxRunner
from tfprune.export.sparse_runtime import SparseRuntimeReport, check_file
from tfprune.export.sparse_runtime.constants import settle_constants
from tfprune.export.tflite import convert, explained, stored_weights

REWRITE_TOLERANCE = 1e-5
"""How far a rewritten model may be from the original, over the largest output value."""

_EXAMPLES = 4
_SEED = 1


@register_format(
    "tflite_sparse",
    filename="model_sparse.tflite",
    tolerance=Tolerance(1e-4),
    runner=LiteRtRunner,
    stored_weights=stored_weights,
    further_runners=(NoAvxRunner,),
)
def _write_float32(source: Source, path: Path) -> str:
    return _write(source, path, float16=False)


@register_format(
    "tflite_sparse_float16",
    filename="model_sparse_float16.tflite",
    tolerance=Tolerance(1e-2),
    runner=LiteRtRunner,
    stored_weights=stored_weights,
    further_runners=(NoAvxRunner,),
)
def _write_float16(source: Source, path: Path) -> str:
    return _write(source, path, float16=True)


def _write(source: Source, path: Path, float16: bool) -> str:
    """Write the first form of a model that runs sparse, or a dense file; return which and why."""
    from tfprune.export.sparse_runtime.rewrites import settle_head, turn

    rewrites = {"With a head of Dense layers": settle_head, "Turned by 180 degrees": turn}
    with explained(source, path):
        report = _convert(source.saved_model, path, float16)
        if report.runs_sparse and not report.traps:
            return f"As it is, it {report.verdict}."
        obstacles = ""
        for form, rewrite in rewrites.items():
            rewritten, obstacle = _rewritten(source, form, rewrite)
            obstacles += obstacle
            if rewritten is not None:
                rewritten_report = _convert(rewritten, path, float16)
                if rewritten_report.runs_sparse and not rewritten_report.traps:
                    return f"{form}, it {rewritten_report.verdict}."
                if rewritten_report.is_ready:  # Then the zeros are too few.
                    report = rewritten_report
        path.write_bytes(convert(source.saved_model, optimize=float16, float16=float16))
        return f"Written dense: {_reason(report)}.{obstacles}"


def _reason(report: SparseRuntimeReport) -> str:
    """Say what keeps a model out of sparse mode."""
    if not report.blockers:
        return report.verdict
    reasons = [f"{count} x {reason}" for (reason, _), count in report.blockers.items()]
    more = f"; and {len(reasons) - 2} other reasons" if len(reasons) > 2 else ""
    return f"{'; '.join(reasons[:2])}{more}; `tfprune check` lists all"


def _convert(saved_model: Path, path: Path, float16: bool) -> SparseRuntimeReport:
    content = convert(saved_model, optimize=float16, float16=float16, sparse=True)
    path.write_bytes(settle_constants(content))
    return check_file(path)


def _rewritten(source: Source, form: str, rewrite: Callable[[Any], Any]) -> tuple[Path | None, str]:
    """Return a SavedModel of a rewritten model if that computes the same, or the reason if not."""
    from tfprune.export.savedmodel import write_saved_model
    from tfprune.export.verify import compare, keras_outputs

    path = source.work / rewrite.__name__
    if path.exists():
        return path, ""
    try:
        rewritten = rewrite(source.model)
    except UnsupportedModelError as error:
        return None, f" {form} it was not tried: {error}"
    if rewritten is None:
        return None, ""
    samples = [random_samples(source.model, source.signature, _EXAMPLES, _SEED)]
    if source.representative is not None:
        samples.append(source.representative.first(_EXAMPLES))
    for some in samples:
        expected, found = (
            keras_outputs(model, source.signature, some) for model in (source.model, rewritten)
        )
        difference = compare(expected, found).max_difference
        if not difference <= REWRITE_TOLERANCE:
            return None, (
                f" {form} it computes something else (a difference of {difference:.1g} of the "
                "largest output), so that is not done."
            )
    write_saved_model(rewritten, source.signature, path)
    return path, ""

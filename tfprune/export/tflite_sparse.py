"""Float TFLite files for XNNPACK's sparse mode, which phones and browsers have.

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
from tfprune.export.formats import Source
from tfprune.export.sparse_runtime import SparseRuntimeReport, check_file
from tfprune.export.sparse_runtime.check import too_few_zeros
from tfprune.export.sparse_runtime.constants import settle_constants
from tfprune.export.sparse_runtime.rules import MIN_SPARSITY

REWRITE_TOLERANCE = 1e-5
"""How far a rewritten model may be from the original, over the largest output value."""

Convert = Callable[..., bytes]
_EXAMPLES = 4
_SEED = 1


def write_for_sparse_mode(source: Source, path: Path, convert: Convert) -> str:
    """Write the first form of a model that runs sparse, or a dense file; return which and why.

    Args:
        source: the model; its `sparse_runtime` is not `"off"`.
        path: the file to write.
        convert: converts a SavedModel at a path; with `sparse=True` into a sparse-encoded file.

    Raises:
        UnsupportedModelError: no form runs sparse, and `source.sparse_runtime` is `"on"`.
    """
    dense = convert(source.saved_model)
    path.write_bytes(dense)
    report = check_file(path)
    most = max((cluster.sparsity for cluster in report.clusters), default=0)
    if source.sparse_runtime == "auto" and not most:
        return ""  # There is nothing to gain, and nothing to tell.
    if source.sparse_runtime == "auto" and most <= MIN_SPARSITY:
        # No cluster that a rewrite makes of these is sparse enough then.
        return f"Written dense: {too_few_zeros(most)}."
    form, report, obstacles = _written_sparse(source, path, convert)
    if form:
        return f"{form}, it {report.verdict}."
    path.write_bytes(dense)
    reason = f"{_reason(report)}.{obstacles}"
    if source.sparse_runtime == "on":
        raise UnsupportedModelError(
            f"{source.model.name!r} cannot be written for XNNPACK's sparse mode: {reason} With "
            '`sparse_runtime="auto"` it is written dense.'
        )
    return f"Written dense: {reason}"


def _written_sparse(
    source: Source, path: Path, convert: Convert
) -> tuple[str, SparseRuntimeReport, str]:
    """Write the first form that runs sparse.

    Returns:
        The form, or "" if none does; what keeps it from that; and the rewrites that were not done.
    """
    from tfprune.export.sparse_runtime.rewrites import settle_head, turn

    rewrites = {"With a head of Dense layers": settle_head, "Turned by 180 degrees": turn}
    report = _checked(source.saved_model, path, convert)
    if _is_good(report):
        return "As it is", report, ""
    obstacles = ""
    for form, rewrite in rewrites.items():
        rewritten, obstacle = _rewritten(source, form, rewrite)
        obstacles += obstacle
        if rewritten is not None:
            rewritten_report = _checked(rewritten, path, convert)
            if _is_good(rewritten_report):
                return form, rewritten_report, obstacles
            if rewritten_report.is_ready:  # Then the zeros are too few.
                report = rewritten_report
    return "", report, obstacles


def _is_good(report: SparseRuntimeReport) -> bool:
    return report.runs_sparse and not report.traps


def _reason(report: SparseRuntimeReport) -> str:
    """Say what keeps a model out of sparse mode."""
    if not report.blockers:
        return report.verdict
    reasons = [f"{count} x {reason}" for (reason, _), count in report.blockers.items()]
    more = f"; and {len(reasons) - 2} other reasons" if len(reasons) > 2 else ""
    return f"{'; '.join(reasons[:2])}{more}; `tfprune check` lists all"


def _checked(saved_model: Path, path: Path, convert: Convert) -> SparseRuntimeReport:
    path.write_bytes(settle_constants(convert(saved_model, sparse=True)))
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

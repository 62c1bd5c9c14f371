"""What `tfprune demo` tells: the before/after table and what to make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from tfprune.cli.tables import comparison_table, percent

if TYPE_CHECKING:
    from tfprune.cli.demo import DemoResult

FORMAT_TITLES = {"savedmodel": "SavedModel", "tflite": "TFLite"}
"""How the formats are called in the table."""


def demo_table(result: DemoResult) -> Table:
    """Compare the dense and the pruned model, and their artifacts of the same formats."""
    before, after = result.before, result.after
    rows = [
        (
            "test accuracy",
            percent(before.accuracy),
            percent(after.accuracy),
            f"{100 * (after.accuracy - before.accuracy):+.2f} points",
        ),
        ("zeros in the kernels", percent(before.kernel_zeros), percent(after.kernel_zeros), ""),
        _row("parameters", before.profile.parameters, after.profile.parameters),
        _row("non-zero parameters", before.profile.nonzeros, after.profile.nonzeros),
        _row("FLOPs", before.profile.flops, after.profile.flops),
        _row(
            "FLOPs on non-zeros",
            before.profile.effective_flops,
            after.profile.effective_flops,
        ),
    ]
    for name, title in FORMAT_TITLES.items():
        old, new = before.report[name], after.report[name]
        rows += [
            _row(f"{title} bytes", old.bytes, new.bytes),
            _row(f"{title} bytes, gzip", old.gzip_bytes, new.gzip_bytes),
            (
                f"{title} latency",
                f"{old.latency_ms:.3f} ms",
                f"{new.latency_ms:.3f} ms",
                _ratio(old.latency_ms, new.latency_ms),
            ),
        ]
    table = comparison_table(f"{result.data}, {percent(result.sparsity)} asked for", rows)
    table.caption = f"{result.seconds:.0f} seconds in all, seed {result.seed}"
    return table


def demo_notes(result: DemoResult) -> str:
    """Say what the numbers mean, and where the files are."""
    old, new = result.before.report["tflite"], result.after.report["tflite"]
    agreement = min(artifact.agreement for artifact in result.after.report.artifacts)
    return "\n".join(
        [
            "Verified: both artifacts of the pruned model were run on test images and predict the "
            f"class that the Keras model predicts on {percent(agreement)} of them.",
            f"What pruning gained: the TFLite file is {old.gzip_bytes / new.gzip_bytes:.1f} times "
            "smaller once it is compressed, as downloads and app stores do.",
            "What it did not gain: an x86 processor computes with a zero like with any other "
            "number, so no file is faster on one, and a SavedModel stores it in as many bytes.",
            f"The TFLite file for phones and browsers: {new.note or 'as converted.'}",
            f"Files: {result.directory}/dense.keras and dense/, pruned.keras and pruned/. "
            f"Try: tfprune inspect {result.directory}/pruned.keras",
        ]
    )


def _row(title: str, before: int, after: int) -> tuple[str, str, str, str]:
    return title, f"{before:,}", f"{after:,}", _ratio(before, after)


def _ratio(before: float, after: float) -> str:
    if before == after:
        return "the same"
    less = f"{before / after:.1f}x" if after else "all"
    more = f"{after / before:.1f}x"
    if "1.0x" in (less, more):
        return "about the same"
    return f"{less} less" if before > after else f"{more} more"

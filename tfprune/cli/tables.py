"""The reports of the library as rich tables. Nothing is computed here but ratios for display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from tfprune import ExportReport, Profile
    from tfprune.export.tflite_summary import Port, TfliteSummary
    from tfprune.planning import PlanReport, PlanRow
    from tfprune.structured import ChannelGraph


def profile_table(profile: Profile, title: str) -> Table:
    """Show one row per layer with weights or MACs, and the totals of the model.

    Args:
        profile: what `tfprune.profile` returned.
        title: the heading, e.g. the file.
    """
    table = _table(title, "layer", "class", "output")
    for name in ("parameters", "non-zero", "sparsity", "MACs", "effective MACs"):
        table.add_column(name, justify="right")
    # macs is None where they are unknown: those are shown.
    shown = [layer for layer in profile.layers if layer.parameters or layer.macs != 0]
    for layer in shown:
        table.add_row(
            escape(layer.path),
            layer.class_name,
            " ".join(_shape(shape[1:]) for shape in layer.output_shapes),
            f"{layer.parameters:,}",
            f"{layer.nonzeros:,}",
            percent(layer.sparsity) if layer.parameters else "",
            _count(layer.macs),
            _count(layer.effective_macs),
        )
    table.add_section()
    table.add_row(
        "all",
        "",
        "",
        f"{profile.parameters:,}",
        f"{profile.nonzeros:,}",
        percent(profile.sparsity),
        _count(profile.macs),
        _count(profile.effective_macs),
        style="bold",
    )
    gzip = "" if profile.bytes.gzip is None else f", after gzip {profile.bytes.gzip:,}"
    table.caption = "\n".join(
        [
            f"weights: {profile.bytes.dense:,} bytes{gzip}; effective MACs: of a runtime that "
            f"skips zeros; not shown: {len(profile.layers) - len(shown)} layers without either",
            *(escape(f"{layer.path}: {layer.note}") for layer in profile.layers if layer.note),
        ]
    )
    return table


def plan_table(plan: PlanReport, title: str) -> Table:
    """Show the sparsity of each kernel, and why some are left alone.

    Biases and other vectors, which are never pruned by themselves, are counted in the caption.

    Args:
        plan: what `tfprune.plan` returned: zeros to come, or those there (`schedule="keep"`).
        title: the heading.
    """
    from tfprune.prunable import SkipReason

    table = _table(title, "weight", "layer", "shape")
    table.add_column("parameters", justify="right")
    table.add_column("sparsity")
    minor = [row for row in plan.rows if row.reason == SkipReason.NOT_A_KERNEL.value]
    for row in plan.rows:
        if row not in minor:
            table.add_row(
                escape(row.path),
                row.layer,
                _shape(row.shape),
                f"{row.parameters:,}",
                escape(_outcome(row)),
                style=None if row.is_pruned else "dim",
            )
    share = plan.prunable_parameters / plan.total_parameters
    table.caption = (
        f"{percent(plan.sparsity)} zeros in {plan.prunable_parameters:,} of "
        f"{plan.total_parameters:,} parameters ({percent(share)}); dense: {len(minor)} biases and "
        f"other vectors with {sum(row.parameters for row in minor):,}"
        + "".join(f"\nwarning: {escape(text)}" for text in plan.warnings)
    )
    return table


def export_table(report: ExportReport) -> Table:
    """Show what was exported, and how far each artifact is from the model."""
    table = _table(f"Exported to {report.directory}", "artifact", "file")
    for name in (
        "bytes",
        "gzip",
        "zeros",
        "difference",
        "allowed",
        "same class",
        "latency",
        "threads",
    ):
        table.add_column(name, justify="right")
    for artifact in report.artifacts:
        table.add_row(
            artifact.name,
            artifact.file,
            f"{artifact.bytes:,}",
            f"{artifact.gzip_bytes:,}",
            "" if artifact.sparsity is None else percent(artifact.sparsity),
            f"{artifact.max_difference:.1e}",
            f"{artifact.tolerance:.0e}",
            "" if artifact.agreement is None else percent(artifact.agreement),
            f"{artifact.latency_ms:.3f} ms",
            str(artifact.threads),
        )
    table.caption = (
        f"verified on {report.verification}; smallest {report.smallest} "
        f"(after gzip {report.smallest_gzip}), fastest here {report.fastest}"
        + "".join(f"\n{escape(note)}" for note in [*report.notes, report.missing_note] if note)
    )
    return table


def runtimes_table(report: ExportReport) -> Table | None:
    """Show on which runtimes artifacts are the same as the model; None if each has only one."""
    if not report.runtime_rows:
        return None
    header, *rows = report.runtime_rows
    table = _table("Differences and times on each runtime", header[0])
    for name in header[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def runtime_list(runtimes: Sequence[dict[str, str]]) -> Table:
    """Show the runtimes of TFLite files, and what is missing for them."""
    table = _table("Runtimes of TFLite files", "runtime", "what it is", "to install")
    for runtime in runtimes:
        table.add_row(runtime["name"], runtime["description"], runtime["missing"] or "installed")
    return table


def tflite_table(summary: TfliteSummary) -> Table:
    """Show what is in a TFLite file.

    Args:
        summary: what `tfprune.export.tflite_summary.summarize` returned.
    """
    table = _table(summary.file, "", "")
    table.add_row("bytes", f"{summary.bytes:,} (after gzip {summary.gzip_bytes:,})")
    table.add_row("inputs", "\n".join(map(_port, summary.inputs)))
    table.add_row("outputs", "\n".join(map(_port, summary.outputs)))
    operators = (f"{count} x {name}" for name, count in summary.operators.items())
    table.add_row("operators", ", ".join(operators))
    constants = (f"{dtype} {count:,}" for dtype, count in summary.weight_bytes.items())
    table.add_row("bytes of constants", ", ".join(constants))
    zeros = "no kernels" if summary.sparsity is None else percent(summary.sparsity)
    table.add_row("zeros in kernels", zeros)
    table.add_row("sparse encoding", f"{summary.sparse_tensors} tensors")
    for share in summary.patterns:
        table.add_row("pattern", str(share))
    _add_standard_metadata(table, summary)
    _add_provenance(table, summary.provenance)
    return table


def _add_standard_metadata(table: Table, summary: TfliteSummary) -> None:
    standard = summary.standard or {}
    for name in ("name", "description", "author", "license"):
        if standard.get(name):
            table.add_row(name, escape(standard[name]))
    for graph in standard.get("subgraph_metadata", []):
        for tensor in graph.get("input_tensor_metadata", []):
            for unit in tensor.get("process_units", []):
                options = unit.get("options", {})
                if options.get("is") == "NormalizationOptions":
                    text = f"mean {_numbers(options['mean'])}, std {_numbers(options['std'])}"
                    table.add_row("normalization", f"{escape(tensor.get('name', ''))}: {text}")
    if summary.labels is not None:
        shown = ", ".join(summary.labels[:5]) + (" ..." if len(summary.labels) > 5 else "")
        table.add_row("labels", escape(f"{len(summary.labels)}: {shown}"))


def _add_provenance(table: Table, provenance: dict | None) -> None:
    if provenance is None:
        table.add_row("exported by", "not tfprune")
        return
    versions = ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
    table.add_row("exported by", escape(versions))
    table.add_row("from the model", escape(provenance["model"]))
    pruned = provenance["kernel_sparsity"]
    table.add_row("pruned kernels", f"{len(pruned)}; --json lists them")
    for plan in provenance["pruning"] or []:
        choices = (f"{name} {choice['class_name']}" for name, choice in plan.items())
        table.add_row("pruned with", escape(", ".join(choices)))


def channel_table(graph: ChannelGraph) -> Table:
    """Show one row per group of channels that go together, and what is frozen, with the reason."""
    table = _table("Channels that can be cut", "group", "=> goes with it")
    for name in ("channels", "units", "parameters"):
        table.add_column(name, justify="right")
    for row in graph.to_dict()["groups"]:
        effects = [*row["makers"][1:], *row["follows"], *(f"{r} (reads)" for r in row["reads"])]
        numbers = [f"{row[name]:,}" for name in ("channels", "units", "parameters")]
        table.add_row(escape(row["name"]), escape(" => ".join(effects)), *numbers)
    table.caption = "\n".join(escape(str(part)) for part in graph.frozen)
    return table


def comparison_table(title: str, rows: Sequence[tuple[str, str, str, str]]) -> Table:
    """Show a before and an after side by side.

    Args:
        title: the heading.
        rows: what it is, before, after, and the change in words.
    """
    table = _table(title, "")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def percent(fraction: float) -> str:
    """Write a fraction as a percentage.

    Example:
        >>> percent(0.8995)
        '89.95 %'
    """
    return f"{100 * fraction:.2f} %"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=escape(title), title_justify="left", caption_justify="left")
    for column in columns:
        # Paths are folded, not cut: they are what a user copies into --include.
        table.add_column(column, overflow="fold")
    return table


def _port(port: Port) -> str:
    return escape(
        f"{port.name}: {port.dtype} {_shape([n if n >= 0 else None for n in port.shape])}"
    )


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _outcome(row: PlanRow) -> str:
    if not row.is_pruned:
        return f"dense: {row.reason}"
    # With one threshold over all layers, the weights decide where the zeros fall.
    return "one threshold for all" if row.sparsity is None else percent(row.sparsity)


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _shape(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"

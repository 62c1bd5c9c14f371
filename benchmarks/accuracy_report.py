"""Table, verdict and plot of the accuracy benchmark, from the finished cells."""

from __future__ import annotations

import csv
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.accuracy_settings import Settings
from benchmarks.accuracy_worker import DENSE, PRUNE


@dataclass(frozen=True)
class Comparison:
    """One line of the table: both toolkits at one sparsity, over all seeds.

    Args:
        label: what was trained.
        sparsity: requested fraction of zeros.
        tfprune_accuracy: mean test accuracy.
        tfprune_spread: sample standard deviation over the seeds.
        tfprune_sparsity: smallest achieved fraction of zeros over the seeds.
        tfprune_seconds: mean seconds in `fit`.
        tfmot_accuracy: as above, for tfmot.
        tfmot_spread: as above.
        tfmot_sparsity: as above.
        tfmot_seconds: as above.
        difference: mean of tfprune minus mean of tfmot.
        noise: twice the standard error of the difference, from the spreads over the seeds, as if
            the two toolkits had been run independently.
        paired_noise: the same from the differences within the seeds. Both toolkits share dense
            weights and batches, so this is the sharper one.
        seed_differences: those differences, in the order of the seeds.
    """

    label: str
    sparsity: float
    tfprune_accuracy: float
    tfprune_spread: float
    tfprune_sparsity: float
    tfprune_seconds: float
    tfmot_accuracy: float
    tfmot_spread: float
    tfmot_sparsity: float
    tfmot_seconds: float
    difference: float
    noise: float
    paired_noise: float
    seed_differences: tuple[float, ...]


def write(rows: list[dict[str, Any]], settings: Settings, command: str) -> str:
    """Write table (Markdown, CSV) and plot beside the cells; return the Markdown.

    Args:
        rows: all cells of the run.
        settings: what was trained.
        command: the command to state in the table.
    """
    dense = [row["accuracy"] for row in rows if row["stage"] == DENSE]
    lines = [_compare(rows, sparsity) for sparsity in (0.0, *settings.sparsities)]
    stem = settings.folder / settings.name
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(lines[0])))
        writer.writeheader()
        writer.writerows(asdict(line) for line in lines)
    _plot(lines, float(np.mean(dense)), stem.with_suffix(".png"))
    text = _markdown(rows, lines, dense, settings, command)
    stem.with_suffix(".md").write_text(text)
    return text


def _compare(rows: list[dict[str, Any]], sparsity: float) -> Comparison:
    cells = {
        toolkit: [
            row
            for row in sorted(rows, key=lambda row: row["seed"])
            if (row["toolkit"], row["stage"], row["sparsity"]) == (toolkit, PRUNE, sparsity)
        ]
        for toolkit in ("tfprune", "tfmot")
    }
    measured = {}
    for toolkit, own in cells.items():
        accuracies = [row["accuracy"] for row in own]
        measured |= {
            f"{toolkit}_accuracy": float(np.mean(accuracies)),
            f"{toolkit}_spread": float(np.std(accuracies, ddof=1)),
            f"{toolkit}_sparsity": min(row["zeros"] / row["prunable"] for row in own),
            f"{toolkit}_seconds": float(np.mean([row["fit_seconds"] for row in own])),
        }
    spreads = measured["tfprune_spread"], measured["tfmot_spread"]
    differences = tuple(
        ours["accuracy"] - theirs["accuracy"]
        for ours, theirs in zip(cells["tfprune"], cells["tfmot"], strict=True)
    )
    return Comparison(
        label=f"{sparsity:.0%} zeros" if sparsity else "dense, trained on",
        sparsity=sparsity,
        difference=measured["tfprune_accuracy"] - measured["tfmot_accuracy"],
        noise=2 * math.hypot(*spreads) / math.sqrt(len(differences)),
        paired_noise=2 * float(np.std(differences, ddof=1)) / math.sqrt(len(differences)),
        seed_differences=differences,
        **measured,
    )


def _markdown(
    rows: list[dict[str, Any]],
    lines: list[Comparison],
    dense: list[float],
    settings: Settings,
    command: str,
) -> str:
    header = ["", "tfprune", "tfmot", "difference", "within each seed", "seed noise"]
    header += ["paired noise", "zeros of tfprune / tfmot", "seconds in fit, tfprune / tfmot"]
    start = f"{np.mean(dense):.2%} ± {np.std(dense, ddof=1):.2%}"
    table = [["dense start", start, "the same weights", *[""] * 6]]
    table += [
        [
            line.label,
            f"{line.tfprune_accuracy:.2%} ± {line.tfprune_spread:.2%}",
            f"{line.tfmot_accuracy:.2%} ± {line.tfmot_spread:.2%}",
            f"{line.difference:+.2%}",
            ", ".join(f"{difference:+.2%}" for difference in line.seed_differences),
            f"{line.noise:.2%}",
            f"{line.paired_noise:.2%}",
            f"{line.tfprune_sparsity:.2%} / {line.tfmot_sparsity:.2%}",
            f"{line.tfprune_seconds:.0f} / {line.tfmot_seconds:.0f}",
        ]
        for line in lines
    ]
    apart = _verdict([line.label for line in lines if line.difference < -line.noise])
    paired = _verdict([line.label for line in lines if line.difference < -line.paired_noise])
    environments = sorted({" - ".join(row["environment"].values()) for row in rows})
    minutes = sum(row["seconds"] for row in rows) / 60
    return f"""# Accuracy at equal budget: tfprune beside tfmot

Fashion-MNIST, accuracy on all 10,000 test images; mean ± sample standard deviation over seeds
{", ".join(str(seed) for seed in settings.seeds)}.

{common.markdown_table(header, table)}

- By the spread over the seeds ("seed noise"), tfprune is **{apart}**.
- By the differences within the seeds ("paired noise"), tfprune is **{paired}**. Both toolkits share
  dense weights and batches, so this is the sharper test; from {len(dense)} pairs it is a rough one.

Either noise is twice the standard error of the difference of the means.

- Command: `{command}`
- Budget: CNN of {rows[0]["parameters"]:,} parameters, {settings.train_images:,} training images,
  batch {settings.batch}; dense start {settings.dense_epochs} epochs (Adam, cosine from
  {settings.dense_rate:g}), then {settings.prune_epochs} epochs with pruning (cosine from
  {settings.prune_rate:g}); cubic schedule from 0 to step {settings.end_step:,} of
  {settings.steps:,}, masks updated every {settings.frequency} steps, all kernels, uniform.
- "Dense, trained on" has the same extra epochs without pruning, in Keras 3 and in tf_keras.
- Time: {minutes:.1f} minutes for all {len(rows)} cells, starting the processes included.
- Where: {"; ".join(environments)}
"""


def _verdict(worse: list[str]) -> str:
    return f"worse at: {', '.join(worse)}" if worse else "not worse at any point"


def _plot(lines: list[Comparison], dense: float, path: Any) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pruned = [line for line in lines if line.sparsity]
    positions = range(len(pruned))
    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    for toolkit, marker, shift in (("tfprune", "o", -0.03), ("tfmot", "s", 0.03)):
        axes.errorbar(
            [position + shift for position in positions],
            [100 * getattr(line, f"{toolkit}_accuracy") for line in pruned],
            [100 * getattr(line, f"{toolkit}_spread") for line in pruned],
            marker=marker,
            capsize=3,
            label=toolkit,
        )
    axes.axhline(100 * dense, color="grey", linestyle=":", label="dense start")
    trained_on = 100 * lines[0].tfprune_accuracy
    axes.axhline(trained_on, color="grey", linestyle="--", label="dense, trained on")
    axes.set_xticks(positions, [f"{line.sparsity:.0%}" for line in pruned])
    axes.set(xlabel="zeros in the kernels", ylabel="test accuracy, %")
    axes.set_title("Fashion-MNIST, equal budget (mean ± std over seeds)")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)

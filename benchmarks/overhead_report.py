"""Table and plot of the overhead benchmark, from the finished cells."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from benchmarks import common, toolkits

IDLE_GOAL = 1.03
TOTAL_GOAL = 1.05
COLUMNS = (
    "toolkit",
    "model",
    "plain_ms",
    "update_ms",
    *(f"{ratio}_{part}" for ratio in ("control", "idle", "total") for part in ("ratio", "error")),
)


def write(rows: list[dict[str, Any]], stem: Path, command: str) -> str:
    """Write table (Markdown, CSV) and plot; return the Markdown.

    Args:
        rows: one dict per toolkit and model.
        stem: path of the results without suffix.
        command: the command to state in the table.
    """
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    _plot(rows, stem.with_suffix(".png"))
    text = _markdown(rows, command)
    stem.with_suffix(".md").write_text(text)
    return text


def _markdown(rows: list[dict[str, Any]], command: str) -> str:
    header = ["model", "toolkit", "plain step", "control", "between updates", "one update", "total"]
    table = [
        [
            row["model"],
            row["toolkit"],
            f"{row['plain_ms']:.1f} ms",
            _ratio(row, "control"),
            _ratio(row, "idle"),
            f"{row['update_ms']:.1f} ms",
            _ratio(row, "total"),
        ]
        for row in sorted(rows, key=lambda row: (row["model"], row["toolkit"] == "tfmot"))
    ]
    ours = [row for row in rows if row["toolkit"] == "tfprune"]
    idle = max(row["idle_ratio"] for row in ours)
    total = max(row["total_ratio"] for row in ours)
    loads = [row["load_before"] for row in rows]
    environments = sorted({" - ".join(row["environment"].values()) for row in rows})
    cases = rows[0]["settings"]["cases"]
    blocks = "; ".join(
        f"{case['model']} {tuple(case['shape'])}, batch {case['batch']}, {case['builds']} builds "
        f"of {case['rounds']} rounds of {case['steps']} steps per variant"
        for case in cases
    )
    return f"""# Overhead of pruning in `fit`: tfprune beside tfmot

Step time of a pruned `fit` over a plain `fit` of the same model: mean over several builds, ± two
standard errors, of the median ratio within interleaved rounds. The control is a second plain model.
Total = between updates + one update / (100 plain steps). What a toolkit does once per epoch is left
out.
Each toolkit is compared with the plain `fit` of its own Keras, in its own process.

{common.markdown_table(header, table)}

Worst of tfprune: between updates {idle:.3f} (goal <= {IDLE_GOAL}: {_met(idle <= IDLE_GOAL)}),
total {total:.3f} (goal <= {TOTAL_GOAL}: {_met(total <= TOTAL_GOAL)}).

- Command: `{command}`
- Budget: {blocks}; random input, seed 0, Adam.
- Time: {sum(row["seconds"] for row in rows) / 60:.1f} minutes, starting the processes included.
- Load average just before the rounds: {min(loads):.1f} to {max(loads):.1f}; the benchmark's own
  warm-up is in it, and more than the number of cores means that something else ran beside it.
- Where: {"; ".join(environments)}
"""


def _ratio(row: dict[str, Any], name: str) -> str:
    return f"{row[f'{name}_ratio']:.3f} ± {row[f'{name}_error']:.3f}"


def _met(reached: bool) -> str:
    return "met" if reached else "missed"


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["model"] for row in rows))
    figure, panels = pyplot.subplots(
        1, 2, figsize=(8, 3.6), sharey=True, layout="constrained", squeeze=True
    )
    titles = {"idle_ratio": "between updates", "total_ratio": "total, an update in 100 steps"}
    for axes, (measured, title) in zip(panels, titles.items(), strict=True):
        for shift, toolkit in zip((-0.2, 0.2), toolkits.NAMES, strict=True):
            own = {row["model"]: row[measured] for row in rows if row["toolkit"] == toolkit}
            bars = axes.bar(
                [position + shift for position in range(len(names))],
                [own[name] for name in names],
                width=0.38,
                label=toolkit,
            )
            axes.bar_label(bars, fmt="%.2f", fontsize=8)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_xticks(range(len(names)), names)
        axes.set_title(title)
    panels[0].set_ylim(0.9)
    panels[0].set_ylabel("step time / plain step time")
    panels[1].legend()
    figure.savefig(path, dpi=150)

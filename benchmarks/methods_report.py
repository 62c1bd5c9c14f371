"""Tables, verdict and data of the methods benchmark, from the finished cells."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import common, methods_plot
from benchmarks.methods_settings import DENSE, ONE_SHOT, RECIPE, TFMOT, TRAINING, Study

Rows = list[dict[str, Any]]

VERDICT_SPARSITIES = (0.95, 0.98)
MODELS = {"lstm": "LSTM", "transformer": "Transformer"}


@dataclass(frozen=True)
class Summary:
    """One method at one sparsity, over all seeds.

    Args:
        study: key of the study.
        stage: how it became sparse: `DENSE`, `TRAINING` or `ONE_SHOT`.
        method: name of the method.
        arguments: what `tfprune.prune` was given.
        sparsity: requested fraction of zeros.
        seeds: number of seeds.
        accuracy: mean test accuracy.
        spread: its sample standard deviation over the seeds.
        achieved: smallest fraction of zeros in the kernels over the seeds.
        kinds: the same for each kind of kernel.
        seconds: mean seconds in `fit`, or in the one-shot call.
        over_tfmot: mean difference to tfmot's accuracy within the seeds, if tfmot was run.
        paired_noise: twice the standard error of that mean.
    """

    study: str
    stage: str
    method: str
    arguments: str
    sparsity: float
    seeds: int
    accuracy: float
    spread: float
    achieved: float
    kinds: dict[str, float]
    seconds: float
    over_tfmot: float | None
    paired_noise: float | None


def write(rows: Mapping[str, Rows], studies: Mapping[str, Study], command: str) -> str:
    """Write tables (Markdown, CSV) and plot beside the cells; return the Markdown.

    Args:
        rows: all finished cells by study.
        studies: what was trained, by key.
        command: the command to state.
    """
    summaries = [summary for key, cells in rows.items() for summary in summarize(key, cells)]
    cnn = studies["cnn"]
    stem = cnn.folder / cnn.name
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Summary.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(
            {**asdict(s), "kinds": "; ".join(f"{k} {v:.4f}" for k, v in s.kinds.items())}
            for s in summaries
        )
    methods_plot.write(summaries, stem.with_suffix(".png"))
    sections = [f"# Methods at equal training budget\n\n{_preface(cnn)}"]
    sections += [_cnn_section(summaries, cnn), _one_shot_section(summaries, studies["oneshot"])]
    sections += [_kinds_section(summaries, studies[key]) for key in MODELS]
    sections.append(_footer(rows, studies, command))
    text = "\n\n".join(section for section in sections if section) + "\n"
    stem.with_suffix(".md").write_text(text)
    return text


def summarize(study: str, rows: Rows) -> list[Summary]:
    """Put the seeds of one study's cells together, in the order in which the cells were made."""
    groups: dict[tuple[str, str, float], dict[int, dict[str, Any]]] = {}
    for row in rows:
        by_seed = groups.setdefault((row["stage"], row["method"], row["sparsity"]), {})
        by_seed[row["seed"]] = row
    return [
        _summary(study, cells, groups.get((TRAINING, TFMOT, sparsity), {}))
        for (_, _, sparsity), cells in groups.items()
    ]


def _summary(
    study: str, cells: dict[int, dict[str, Any]], peers: dict[int, dict[str, Any]]
) -> Summary:
    own = list(cells.values())
    first = own[0]
    accuracies = [row["accuracy"] for row in own]
    differences = []
    if first["method"] != TFMOT:
        shared = cells.keys() & peers.keys()
        differences = [cells[seed]["accuracy"] - peers[seed]["accuracy"] for seed in shared]
    return Summary(
        study=study,
        **{key: first[key] for key in ("stage", "method", "arguments", "sparsity")},
        seeds=len(own),
        accuracy=statistics.fmean(accuracies),
        spread=_deviation(accuracies),
        achieved=min(row["zeros"] / row["prunable"] for row in own),
        kinds={
            kind: min(zeros / size for zeros, size in (row["kinds"][kind] for row in own))
            for kind in first["kinds"]
        },
        seconds=statistics.fmean(row["method_seconds"] for row in own),
        over_tfmot=statistics.fmean(differences) if differences else None,
        paired_noise=2 * _deviation(differences) / len(differences) ** 0.5 if differences else None,
    )


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _preface(study: Study) -> str:
    seeds = ", ".join(str(seed) for seed in study.seeds)
    return (
        f"Fashion-MNIST, {study.train_images:,} training images; accuracy on all 10,000 test "
        f"images, mean ± sample standard deviation over seeds {seeds}. "
        '"Zeros" is the smallest\nfraction over the seeds, "over tfmot" the mean difference '
        "within the seeds ± twice its standard error."
    )


def _cnn_section(summaries: list[Summary], study: Study) -> str:
    table = _wide_table(_select(summaries, study.key, TRAINING), study.sparsities)
    if not table:
        return ""
    lines = []
    for sparsity in VERDICT_SPARSITIES:
        compared = [
            s
            for s in _select(summaries, study.key, TRAINING)
            if s.sparsity == sparsity and s.over_tfmot is not None
        ]
        if compared:
            best = max(compared, key=lambda s: s.accuracy)
            lines.append(f"At {sparsity:.0%} the best of {len(compared)} is {_verdict(best)}")
            lines += [
                f"At {sparsity:.0%} {_verdict(s)}" for s in compared if s.method == RECIPE != best
            ]
    steps = study.steps
    return f"""## CNN, pruned while training

{_dense_line(summaries, study)}

{table}

- {f"{chr(10)}- ".join(lines)}
- The best is picked from these very numbers; "{RECIPE}" was chosen before on held-out training
  images with another seed.
- Dense start: {study.dense_epochs} epochs (Adam, batch {study.batch}, cosine from
  {study.dense_rate:g}); then {study.prune_epochs} epochs = {steps} steps with pruning (cosine from
  {study.prune_rate:g}); cubic schedule from 0, final sparsity at step {study.end_step(2 / 3)}
  unless another part of the steps is named, masks updated every {study.frequency} steps.
- "RigL, ERK" is trained from scratch for {study.dense_epochs + study.prune_epochs} epochs, the sum
  of both budgets, sparse from the first step on (cosine from {study.dense_rate:g}). Taylor also
  looks at {study.calibration_images} training images at each update of the masks."""


def _verdict(summary: Summary) -> str:
    difference, noise = summary.over_tfmot or 0.0, summary.paired_noise or 0.0
    word = "clear" if difference > noise else "worse" if difference < -noise else "within noise"
    return (
        f'"{summary.method}": {summary.accuracy:.2%}, **{difference:+.2%} ± {noise:.2%} over '
        f"tfmot ({word})**, {summary.seeds} seeds."
    )


def _one_shot_section(summaries: list[Summary], study: Study) -> str:
    table = _wide_table(_select(summaries, study.key, ONE_SHOT), study.one_shot_sparsities)
    if not table:
        return ""
    return f"""## CNN, pruned in one shot without training

{_dense_line(summaries, study)} `tfprune.prune_once` with magnitude or Wanda, uniform unless
global is named, and `tfprune.methods.sparse_gpt`; Wanda and SparseGPT look at
{study.calibration_images} training images.

{table}"""


def _wide_table(own: list[Summary], sparsities: Iterable[float]) -> str:
    """Return one line per method with a column per sparsity, or "" if nothing is finished."""
    if not own:
        return ""
    with_arguments = any(s.arguments for s in own)
    sparsities = list(sparsities)
    over = [s for s in sparsities if s in VERDICT_SPARSITIES and with_arguments]
    header = ["", *(["arguments of `tfprune.prune`"] if with_arguments else [])]
    header += [f"{sparsity:.0%}" for sparsity in sparsities]
    header += [f"over tfmot at {sparsity:.0%}" for sparsity in over]
    lines = []
    for method in dict.fromkeys(s.method for s in own):
        by_sparsity = {s.sparsity: s for s in own if s.method == method}
        found = [by_sparsity.get(sparsity) for sparsity in sparsities]
        cells = [method]
        if with_arguments:
            cells.append(next(iter(by_sparsity.values())).arguments)
        cells += [_accuracy(s) for s in found]
        cells += [_over_tfmot(by_sparsity.get(sparsity)) for sparsity in over]
        cells.append(" / ".join(f"{100 * s.achieved:.2f}" for s in found if s) + " %")
        cells.append(f"{statistics.fmean(s.seconds for s in found if s):.1f}")
        lines.append(cells)
    return common.markdown_table([*header, "zeros", "seconds"], lines)


def _kinds_section(summaries: list[Summary], study: Study) -> str:
    own = _select(summaries, study.key, TRAINING)
    if not own:
        return ""
    header = ["", "asked", "accuracy", "over tfmot", "all zeros", *own[0].kinds, "seconds"]
    table = [
        [
            s.method,
            f"{s.sparsity:.0%}",
            _accuracy(s),
            _over_tfmot(s),
            f"{s.achieved:.2%}",
            *(f"{zeros:.2%}" for zeros in s.kinds.values()),
            f"{s.seconds:.1f}",
        ]
        for s in sorted(own, key=lambda s: s.sparsity)
    ]
    return f"""## {MODELS[study.key]}, pruned while training

{_dense_line(summaries, study)} Dense start {study.dense_epochs} epochs, then {study.prune_epochs}
with pruning; otherwise as the CNN. By kind of kernel, the smallest fraction of zeros:

{common.markdown_table(header, table)}"""


def _dense_line(summaries: list[Summary], study: Study) -> str:
    start = _select(summaries, study.key, DENSE)[0]
    return f"Dense start: {_accuracy(start)}."


def _footer(rows: Mapping[str, Rows], studies: Mapping[str, Study], command: str) -> str:
    cells = [row for own in rows.values() for row in own]
    environments = sorted({" - ".join(row["environment"].values()) for row in cells})
    sizes = [f"{key} {own[0]['parameters']:,}" for key, own in rows.items() if own]
    minutes = ", ".join(
        f"{key} {sum(row['seconds'] for row in own) / 60:.1f}" for key, own in rows.items() if own
    )
    missing = sum(_missing(studies[key], own) for key, own in rows.items())
    unfinished = f"\n- **Unfinished: {missing} cells are missing.**" if missing else ""
    return f"""## How

- Command: `{command}` (`--only` runs a part){unfinished}
- Parameters: {", ".join(sizes)}. All kernels are pruned.
- Minutes, starting the processes included: {minutes}; {len(cells)} cells.
- Where: {"; ".join(environments)}"""


def _missing(study: Study, rows: Rows) -> int:
    cells = {cell for toolkit in ("tfprune", TFMOT) for cell in study.cells(toolkit)}
    done = {(row["seed"], row["stage"], row["method"], row["sparsity"]) for row in rows}
    return sum((seed, *cell) not in done for seed in study.seeds for cell in cells)


def _select(summaries: list[Summary], study: str, stage: str) -> list[Summary]:
    return [s for s in summaries if (s.study, s.stage) == (study, stage)]


def _accuracy(summary: Summary | None) -> str:
    return f"{summary.accuracy:.2%} ± {summary.spread:.2%}" if summary else ""


def _over_tfmot(summary: Summary | None) -> str:
    if summary is None or summary.over_tfmot is None:
        return ""
    return f"{summary.over_tfmot:+.2%} ± {summary.paired_noise:.2%}"

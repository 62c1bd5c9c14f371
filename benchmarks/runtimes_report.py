"""The table, the goals and the plot of `benchmarks.runtimes`."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks import common

PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "numpy")
RIGHT = 1e-4
"""A difference from Keras, as a fraction of the largest output, that counts as the same."""

GOALS = (
    ("wasm", "MobileNetV2", 0.85, 2.0),
    ("wasm", "MobileNetV1, padded evenly", 0.90, 3.3),
    ("arm64", "MobileNetV1, padded evenly", 0.90, 3.0),
    ("arm64", "MobileNetV2", 0.90, 3.0),
    ("arm64", "EfficientNetB0", 0.90, 3.0),
)
TITLES = {
    "native": "x86 with AVX",
    "no-avx": "x86 without AVX (emulated)",
    "arm64": "arm64 (emulated)",
    "wasm": "WebAssembly (Chromium)",
}


def gain(row: dict[str, Any], variant: str = "tfprune") -> float | None:
    """Return how many times faster than the dense file a variant is; None if one did not run."""
    if row["dense_ms"] is None or row[f"{variant}_ms"] is None:
        return None
    return row["dense_ms"] / row[f"{variant}_ms"]


def markdown(rows: list[dict[str, Any]], cells: int) -> str:
    """Return the report of the rows, out of so many cells."""
    header = [
        "model", "zeros", "runtime", "input", "dense", "encoded", "tfprune", "encoded gains",
        "tfprune gains", "difference: dense", "encoded", "tfprune",
    ]  # fmt: skip
    table = [
        [
            row["model"],
            f"{row['sparsity']:.0%}",
            TITLES[row["runtime"]],
            str(row["size"]),
            *(_written(row[f"{name}_ms"], "{:.1f} ms") for name in ("dense", "encoded", "tfprune")),
            *(_written(gain(row, name), "{:.2f}x") for name in ("encoded", "tfprune")),
            *(_written(row[f"{n}_difference"], "{:.0e}") for n in ("dense", "encoded", "tfprune")),
        ]
        for row in rows
    ]
    loads = [row["load"] for row in rows]
    seconds = sum(row["seconds"] for row in rows)
    return f"""# Sparse mobile models on the runtimes they ship to

{common.markdown_table(header, table)}

- {f"{chr(10)}- ".join(_goals(rows))}

Milliseconds are medians of calls in turns, one thread; those of an emulator say something only
beside each other. "Encoded" is the converter's sparse encoding alone; the encoded file of a net
that does not fit sparse mode runs dense, and one that fits as it is, as MobileNetV1 here, equals
tfprune's: what their times differ by is the noise of this run. Differences are from Keras, as
fractions of the largest output. The 1x1 filters have the zeros; weights are random, and so are the
scales, offsets and statistics of batch normalization.

- Command: `python -m benchmarks.runtimes`
- Cells: {len(rows)} of {cells}{_unfinished(rows, cells)}.
- Budget: medians of 24 calls (native, WebAssembly) and 2 calls (emulators) per file, in turns;
  {seconds / 60:.0f} minutes.
- Load: the machine was shared, with a load average of {statistics.median(loads):.1f} in the median
  and up to {max(loads):.1f}; the ratios are what to read.
- Where: {" - ".join(common.environment(PACKAGES).values())}; {_runtimes()}
"""


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the gains of each model, one panel per runtime."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    present = [name for name in TITLES if any(row["runtime"] == name for row in rows)]
    figure, panels = pyplot.subplots(
        1, len(present), figsize=(3.2 * len(present), 3.4), sharey=True, layout="constrained",
        squeeze=False,
    )  # fmt: skip
    models = list(dict.fromkeys(row["model"] for row in rows))
    for axes, runtime in zip(panels[0], present, strict=True):
        for index, model in enumerate(models):
            own = [row for row in rows if (row["model"], row["runtime"]) == (model, runtime)]
            for variant, style in (("tfprune", "o-"), ("encoded", "x:")):
                points = [(row["sparsity"], gain(row, variant)) for row in own]
                points = [point for point in points if point[1] is not None]
                label = f"{model}, {variant}"
                axes.plot(*zip(*points, strict=True), style, color=f"C{index}", label=label)
        axes.set(title=TITLES[runtime], xlabel="zeros in the 1x1 filters")
        axes.axhline(1, color="gray", linewidth=0.5)
    panels[0][0].set_ylabel("times faster than the dense file")
    panels[0][0].legend(fontsize="x-small")
    figure.savefig(path, dpi=150)


def _goals(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for runtime, model, sparsity, goal in GOALS:
        for row in rows:
            if (row["runtime"], row["model"], row["sparsity"]) == (runtime, model, sparsity):
                found = gain(row) or 0.0
                lines.append(
                    f"{TITLES[runtime]}, {model} at {sparsity:.0%}: at least {goal:.1f}x: "
                    f"{'met' if found >= goal else 'missed'}, {found:.2f}x."
                )
    differences = [row["tfprune_difference"] for row in rows]
    right = all(value is not None and value <= RIGHT for value in differences)
    worst = max((value for value in differences if value is not None), default=0.0)
    lines.append(
        f"tfprune's outputs are right (within {RIGHT:.0e}) everywhere: "
        f"{'met' if right else 'missed'}, {worst:.0e} at worst."
    )
    encoded = [row["encoded_difference"] for row in rows]
    wrong = sum(value is None or value > RIGHT for value in encoded)
    lines.append(f"Encoded files that are wrong or do not load: {wrong} of {len(rows)}.")
    return lines


def _unfinished(rows: list[dict[str, Any]], cells: int) -> str:
    if len(rows) == cells:
        return ""
    return "; the run was cut, and the same command measures the rest"


def _written(value: float | None, pattern: str) -> str:
    return "does not run" if value is None else pattern.format(value)


def _runtimes() -> str:
    from tfprune.export.runners.arm64_setup import LITERT_VERSION
    from tfprune.export.runners.wasm_setup import LITERT_JS_VERSION

    return f"arm64 with ai-edge-litert {LITERT_VERSION}, LiteRT.js {LITERT_JS_VERSION}"

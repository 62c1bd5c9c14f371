"""The plot of the methods benchmark: accuracy against sparsity, after training and in one shot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.methods_settings import DENSE, ONE_SHOT, RECIPE, TFMOT, TRAINING

if TYPE_CHECKING:
    from benchmarks.methods_report import Summary

MARKERS = "osD^v<>Pp"
STYLES = {
    TFMOT: {"color": "black", "linestyle": "--", "zorder": 3},
    RECIPE: {"color": "crimson", "linewidth": 2.5, "zorder": 4},
}
PANELS = {
    "cnn": (TRAINING, "pruned while training, equal budget"),
    "oneshot": (ONE_SHOT, "one shot, without training"),
}


def write(summaries: list[Summary], path: Path) -> None:
    """Draw what is finished of the CNN.

    Args:
        summaries: what `methods_report.summarize` returned.
        path: the PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 5.6), layout="constrained")
    for axes, (study, (stage, title)) in zip(panels, PANELS.items(), strict=True):
        own = [s for s in summaries if s.study == study]
        _draw(axes, [s for s in own if s.stage == stage])
        for dense in (s for s in own if s.stage == DENSE):
            axes.axhline(100 * dense.accuracy, color="grey", linestyle=":", label="dense start")
        axes.set(title=title, xlabel="zeros in the kernels")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize=9)
    panels[0].set_ylabel("test accuracy, %")
    figure.suptitle("CNN on Fashion-MNIST (mean ± std over seeds)")
    figure.savefig(path, dpi=150)


def _draw(axes: Any, summaries: list[Summary]) -> None:
    """Draw one line per method; at each sparsity the methods stand side by side."""
    sparsities = sorted({s.sparsity for s in summaries})
    methods = list(dict.fromkeys(s.method for s in summaries))
    for number, (method, marker) in enumerate(zip(methods, MARKERS, strict=False)):
        line = sorted((s for s in summaries if s.method == method), key=lambda s: s.sparsity)
        shift = 0.04 * (number - (len(methods) - 1) / 2)
        axes.errorbar(
            [sparsities.index(s.sparsity) + shift for s in line],
            [100 * s.accuracy for s in line],
            [100 * s.spread for s in line],
            marker=marker,
            markersize=5,
            capsize=2,
            label=method,
            **STYLES.get(method, {}),
        )
    axes.set_xticks(range(len(sparsities)), [f"{sparsity:.0%}" for sparsity in sparsities])

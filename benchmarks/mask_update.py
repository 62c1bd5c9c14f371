"""One exact global mask update over ResNet50, beside `tf.math.top_k` in the same run.

top_k is what tfmot updates its masks with (over all elements, so as a full sort); here it also gets
the easier job of returning only the weights that are kept. It is timed on a ready array of |w|,
tfprune from the model's variables on.

    python -m benchmarks.mask_update
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, memory

SPARSITY = 0.8
REPEATS = 9
SECONDS_GOAL = 0.35
RATIO_GOAL = 30
MEMORY_GOAL = 2


@dataclass(frozen=True)
class Measurement:
    """Time and memory of one way to select the weights that are kept.

    Args:
        name: what was measured.
        seconds: median over the repeats.
        peak_mb: resident memory at its peak, over what was resident before; first call. `None` for
            top_k, which finds memory that the calls before it have left behind.
        memory_ratio: the same over the size of the scored weights.
    """

    name: str
    seconds: float
    peak_mb: float | None
    memory_ratio: float | None


def build() -> Any:
    """Return ResNet50 in training, with masks that keep everything, as a `tfprune.Pruner`.

    The kernels are normal, as trained ones roughly are, with Glorot's deviation; the uniform
    initial values would leave wide layers without a single large weight.
    """
    import keras

    import tfprune

    model = keras.applications.ResNet50(weights=None)
    random = np.random.default_rng(0)
    for weight in model.trainable_variables:
        if len(weight.shape) > 1:
            fans = np.prod(weight.shape[:-2]) * sum(weight.shape[-2:])
            values = random.standard_normal(weight.shape, dtype=np.float32)
            weight.assign(values * np.float32(np.sqrt(2 / fans)))
    schedule = tfprune.schedules.ConstantSparsity(SPARSITY, frequency=1)
    pruned = tfprune.prune(model, schedule=schedule, allocation="global", copy=False)
    pruned.compile("adam", "sparse_categorical_crossentropy")
    pruned.optimizer.build(pruned.trainable_variables)
    return tfprune.Pruner(pruned)


def measure(name: str, call: Callable[[], Any], reset: Callable[[], Any], repeats: int) -> Any:
    """Time a call after a first one, whose memory is measured.

    Args:
        name: what is measured.
        call: function without arguments.
        reset: called before each call, outside of the measurement.
        repeats: timed calls.

    Returns:
        Name, seconds (median) and peak extra bytes.
    """
    reset()
    peak = memory.peak_extra_bytes(call)
    seconds = []
    for _ in range(repeats):
        reset()
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return name, statistics.median(seconds), peak


def check_same_selection(pruner: Any, magnitudes: np.ndarray, kept: int) -> str:
    """Compare the masks in force with what top_k selects.

    Args:
        pruner: after its update.
        magnitudes: all |w| before the update, flat, in the order of `pruner.weights`.
        kept: number of weights that top_k returns.

    Returns:
        The finding, as a sentence.

    Raises:
        SystemExit: if another number or another set of weights was selected.
    """
    import tensorflow as tf

    mask = np.concatenate([weight.alive().reshape(-1) for weight in pruner.weights])
    top = tf.math.top_k(magnitudes, k=kept)
    peer = np.zeros_like(mask)
    peer[top.indices.numpy()] = True
    threshold = float(top.values[-1])
    differing = magnitudes[mask != peer]
    if np.count_nonzero(mask) != kept or np.any(differing != threshold):
        raise SystemExit(
            f"The selections differ: {np.count_nonzero(mask):,} kept, top_k keeps {kept:,}; "
            f"{np.count_nonzero(differing != threshold):,} differ beyond ties."
        )
    return (
        f"Both keep {kept:,} of {mask.size:,} weights, the same set; "
        f"{differing.size} differ among ties at the threshold."
    )


def run() -> tuple[list[Measurement], str]:
    """Measure tfprune and top_k; return the measurements and how the selections compare."""
    import tensorflow as tf

    from tfprune.mask_computation import compute_masks

    pruner = build()
    weights, plan = pruner.weights, pruner.runs[0].plan
    originals = [weight.variable.numpy().copy() for weight in weights]

    def reset() -> None:
        for weight, values in zip(weights, originals, strict=True):
            weight.variable.assign(values)
            weight.mask.assign(np.ones(values.shape, bool))

    found = [
        measure("tfprune: masks", lambda: compute_masks(weights, plan, SPARSITY), reset, REPEATS),
        measure("tfprune: whole update", pruner.step, reset, REPEATS),
    ]
    magnitudes = np.abs(np.concatenate([values.reshape(-1) for values in originals]))
    kept = round(magnitudes.size * (1 - SPARSITY))
    same = check_same_selection(pruner, magnitudes, kept)
    tensor = tf.constant(magnitudes)
    for name, count in (("kept only", kept), ("all, as tfmot does", magnitudes.size)):
        found.append(
            measure(
                f"tf.math.top_k: {name}",
                lambda count=count: tf.math.top_k(tensor, k=count).values[kept - 1].numpy(),
                lambda: None,
                repeats=1,
            )
        )
    measurements = [
        Measurement(name, seconds, peak / 1e6, peak / magnitudes.nbytes)
        if name.startswith("tfprune")
        else Measurement(name, seconds, None, None)
        for name, seconds, peak in found
    ]
    return measurements, same


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    started = time.perf_counter()
    measurements, same = run()
    stem = common.RESULTS / "mask_update"
    stem.parent.mkdir(exist_ok=True)
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(measurements[0])))
        writer.writeheader()
        writer.writerows(asdict(measurement) for measurement in measurements)
    _plot(measurements, stem.with_suffix(".png"))
    text = _markdown(measurements, same, time.perf_counter() - started)
    stem.with_suffix(".md").write_text(text)
    print(text)


def _markdown(measurements: list[Measurement], same: str, seconds: float) -> str:
    masks, update, *peers = measurements
    fastest = min(peers, key=lambda peer: peer.seconds)
    # Like with like: top_k selects too, and assigns nothing.
    ratio = fastest.seconds / masks.seconds
    goals = [
        f"whole update {update.seconds:.3f} s (goal <= {SECONDS_GOAL} s"
        f": {_met(update.seconds <= SECONDS_GOAL)})",
        f"masks {ratio:.0f} times as fast as the faster top_k, which selects and assigns nothing "
        f"(goal >= {RATIO_GOAL}: {_met(ratio >= RATIO_GOAL)}); the whole update "
        f"{fastest.seconds / update.seconds:.0f} times",
        f"peak extra memory {update.memory_ratio:.2f} times the scored weights "
        f"(goal <= {MEMORY_GOAL}: {_met(update.memory_ratio <= MEMORY_GOAL)})",
    ]
    table = [
        [
            measurement.name,
            f"{measurement.seconds:.3f} s",
            f"{measurement.seconds / update.seconds:.1f}",
            "" if measurement.peak_mb is None else f"{measurement.peak_mb:.0f} MB",
            "" if measurement.memory_ratio is None else f"{measurement.memory_ratio:.2f}",
        ]
        for measurement in measurements
    ]
    header = ["", "time", "time / whole update", "peak extra memory", "over scored weights"]
    return f"""# One exact global mask update over ResNet50 at {SPARSITY:.0%}

{common.markdown_table(header, table)}

"Whole update" scores the variables, computes the masks, assigns them, zeroes the pruned weights
and their Adam moments. {same}

- {f"{chr(10)}- ".join(goals)}

- Command: `{common.command()}`
- Budget: median of {REPEATS} repeats (top_k: 1) after a first call, whose memory is shown; seed 0;
  {seconds:.0f} s in all.
- Where: {" - ".join(common.environment(("tensorflow", "numpy")).values())}
"""


def _met(reached: bool) -> str:
    return "met" if reached else "missed"


def _plot(measurements: list[Measurement], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 2.8), layout="constrained")
    names = [measurement.name for measurement in measurements][::-1]
    bars = axes.barh(names, [measurement.seconds for measurement in measurements][::-1])
    axes.bar_label(bars, fmt="%.2f s", padding=3)
    axes.axvline(SECONDS_GOAL, color="grey", linestyle="--", label="goal")
    axes.set(xscale="log", xlim=(0.05, 100), xlabel="seconds", title="One global mask update")
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()

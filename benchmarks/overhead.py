"""Step time of a pruned `fit` over a plain `fit`, for tfprune and for tfmot.

For each model four fits alternate in short blocks, so that a slow moment of the machine hits all:
plain, plain again (the control: its ratio is what nothing at all looks like here), pruned with no
update due, and pruned with one update per block. A block is one epoch of real `fit`, timed from
`on_epoch_begin` to `on_epoch_end`: no callback of ours runs per batch, as that alone would slow a
plain Keras 3 fit. What a toolkit does once per epoch is not in it.

Two builds of one and the same model differ in speed by several per cent, so all four are built
anew several times: a build gives the median of the ratios within its rounds, the result is the mean
over the builds. The total is that between two updates plus one update in 100 steps.

    python -m benchmarks.overhead [--quick]
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, models, overhead_report, toolkits

FREQUENCY = 100
"""Steps between two updates in the total, the default of both toolkits."""
NEVER = 10**8
VARIANTS = ("plain", "control", "idle", "updating")


@dataclass(frozen=True)
class Case:
    """One measured model.

    Args:
        model: name of a function in `models`.
        shape: shape of one example.
        batch: examples in a batch.
        steps: steps in a block.
        rounds: how often the variants alternate in one build.
        builds: how often all variants are built anew.
    """

    model: str
    shape: tuple[int, ...]
    batch: int
    steps: int
    rounds: int
    builds: int


CASES = (
    Case("small_cnn", (28, 28, 1), batch=128, steps=25, rounds=6, builds=6),
    Case("lstm", (28, 28), batch=64, steps=25, rounds=6, builds=6),
    Case("resnet50", (64, 64, 3), batch=16, steps=5, rounds=4, builds=2),
)


def measure(case: Case, toolkit: toolkits.Toolkit) -> dict[str, Any]:
    """Measure one model with one toolkit, in this process.

    Args:
        case: the model and its budget.
        toolkit: what `toolkits.load` returned.

    Returns:
        Milliseconds per step, and mean and two standard errors of the ratios.
    """
    import tensorflow as tf

    random = np.random.default_rng(0)
    images = random.random((case.batch, *case.shape), dtype=np.float32)
    labels = random.integers(0, 10, case.batch)
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat().prefetch(2)
    load = os.getloadavg()[0]
    builds = np.array([_measure_build(case, toolkit, batches, random) for _ in range(case.builds)])
    plain, control, idle, update = builds.T
    step = float(np.median(plain))
    ratios = {
        "control": control,
        "idle": idle,
        "total": idle + update / (FREQUENCY * plain),
    }
    measured = {"plain_ms": 1000 * step, "update_ms": 1000 * float(np.median(update))}
    for name, values in ratios.items():
        measured[f"{name}_ratio"] = float(values.mean())
        measured[f"{name}_error"] = float(2 * values.std(ddof=1) / len(values) ** 0.5)
    return {**measured, "load_before": round(load, 2)}


def _measure_build(
    case: Case, toolkit: toolkits.Toolkit, batches: Any, random: np.random.Generator
) -> list[float]:
    """Return seconds of a plain step, the ratios of control and idle, seconds of an update."""
    # In random order: what is built or run first is often the fastest.
    fits = [_Fit(variant, case, toolkit, batches) for variant in random.permutation(VARIANTS)]
    for fit in fits:  # Traces the graphs; the idle fit gets its masks here.
        fit.block()
    times = []
    for _ in range(case.rounds):
        block = {fit.variant: fit.block() for fit in random.permutation(fits)}
        times.append([block[variant] for variant in VARIANTS])
    toolkit.keras.backend.clear_session()
    plain, control, idle, updating = np.array(times).T
    medians = [plain / case.steps, control / plain, idle / plain, updating - idle]
    return [float(np.median(values)) for values in medians]


class _Fit:
    """A model that is trained block by block; `variant` is one of `VARIANTS`."""

    def __init__(self, variant: str, case: Case, toolkit: toolkits.Toolkit, batches: Any) -> None:
        self.variant, self.steps, self.batches = variant, case.steps, batches
        self.model = getattr(models, case.model)(toolkit.keras)
        self.callbacks = []
        if variant in ("idle", "updating"):
            frequency = case.steps if variant == "updating" else NEVER
            self.model = toolkit.prune(
                self.model, 0.5, 0.8, begin_step=1, end_step=10 * NEVER, frequency=frequency
            )
            self.callbacks = [toolkit.callback()]
        self.clock = _clock(toolkit.keras)
        toolkits.compile_for_labels(self.model, toolkit)

    def block(self) -> float:
        """Train one block; return its seconds."""
        with warnings.catch_warnings():
            # tfprune warns that these short fits end before their schedule does.
            warnings.simplefilter("ignore")
            self.model.fit(
                self.batches,
                steps_per_epoch=self.steps,
                callbacks=[self.clock, *self.callbacks],
                shuffle=False,
                verbose=0,
            )
        return self.clock.seconds


def _clock(keras: Any) -> Any:
    class EpochClock(keras.callbacks.Callback):
        """Times the epoch."""

        def on_epoch_begin(self, epoch, logs=None):
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds = time.perf_counter() - self.started

    return EpochClock()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tries the machinery")
    parser.add_argument("--toolkit", choices=toolkits.NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = common.SCRATCH if options.quick else common.RESULTS
    cases = [replace(case, rounds=2, builds=2) for case in CASES] if options.quick else CASES
    rows_path = folder / "overhead.jsonl"
    settings = {"cases": [{**asdict(case), "shape": list(case.shape)} for case in cases]}
    if options.toolkit:
        _measure_missing(cases, options.toolkit, rows_path, settings)
        return
    for name in toolkits.NAMES:
        quick = ["--quick"] if options.quick else []
        common.run_worker("benchmarks.overhead", "--toolkit", name, *quick)
    rows = common.read_rows(rows_path, settings)
    print(overhead_report.write(rows, folder / "overhead", common.command()))


def _measure_missing(cases: Any, name: str, rows_path: Path, settings: dict[str, Any]) -> None:
    rows = common.read_rows(rows_path, settings)
    done = {row["model"] for row in rows if row["toolkit"] == name}
    missing = [case for case in cases if case.model not in done]
    if not missing:
        return
    started = time.perf_counter()
    toolkit = toolkits.load(name)
    for case in missing:
        row = {"toolkit": name, "model": case.model, **measure(case, toolkit)}
        ended = time.perf_counter()
        row |= {"seconds": round(ended - started, 1), "settings": settings}
        common.append_row(rows_path, {**row, "environment": common.environment()})
        started = ended
        print(
            f"{name:8} {case.model:10} step {row['plain_ms']:.1f} ms, control "
            f"x{row['control_ratio']:.3f}, between updates x{row['idle_ratio']:.3f}, "
            f"total x{row['total_ratio']:.3f}, {row['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()

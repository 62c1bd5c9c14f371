"""What it costs to score all weights of ResNet50: time and memory of every criterion.

Each criterion runs through the engine - evidence from data, scores, masks of half the weights - in
processes of its own, beside one forward pass and one training step of the same model. Two things
are measured: time and peak memory with a batch of 8 images at 224x224, and, with a single image of
32x32, whose activations hardly count, how many copies of the weights are held.

    python -m benchmarks.criteria [--quick]
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks import common, criteria_report, memory, models
from tfprune.criteria import Criterion
from tfprune.criteria.dynamic import DropAndGrow

SPARSITY = 0.5
FORWARD = "one forward pass"
STEP = "one training step"
LOSS = "sparse_categorical_crossentropy"


@dataclass(frozen=True)
class Case:
    """The data that a criterion looks at.

    Args:
        size: height and width of the images.
        images: how many, in one batch.
        repeats: timed calls after the first one.
    """

    size: int
    images: int
    repeats: int


CASES = {"full": Case(224, 8, 3), "weights": Case(32, 1, 1)}
"""For time and memory, and for the copies of the weights."""
QUICK_CASES = {"full": Case(64, 2, 1), "weights": Case(32, 1, 1)}


def names() -> list[str]:
    """Return the yardsticks and the criteria that score without training."""
    criteria = [
        criterion.name()
        for criterion in Criterion.registry.values()
        if not (
            inspect.isabstract(criterion)
            or criterion.accumulates
            or issubclass(criterion, DropAndGrow)
        )
    ]
    return [FORWARD, STEP, *criteria]


def measure(name: str, case: Case) -> dict[str, Any]:
    """Measure one criterion or yardstick in this process.

    Args:
        name: one of `names()`.
        case: the data.

    Returns:
        `seconds` (median after the first call); `first_bytes` and `repeated_bytes`, the peak extra
        memory of the first call and of a second one; `weight_bytes`, the size of what is scored.
    """
    import keras

    keras.utils.set_random_seed(0)
    _warm_up(keras)
    model = keras.applications.ResNet50(weights=None, input_shape=(case.size, case.size, 3))
    random = np.random.default_rng(0)
    images = random.random((case.images, case.size, case.size, 3), dtype=np.float32)
    call, weight_bytes = _call(name, model, (images, random.integers(0, 1000, case.images)))
    first = memory.peak_extra_bytes(call)
    repeated = memory.peak_extra_bytes(call)
    seconds = []
    for _ in range(case.repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": statistics.median(seconds),
        "first_bytes": first,
        "repeated_bytes": repeated,
        "weight_bytes": weight_bytes,
    }


def _warm_up(keras: Any) -> None:
    """Let TensorFlow load what it needs once, so that no criterion is charged with it."""
    model = models.small_cnn(keras)
    model.compile("sgd", "mse")
    model.train_on_batch(np.zeros((8, 28, 28, 1), np.float32), np.zeros((8, 10), np.float32))
    model(np.zeros((8, 28, 28, 1), np.float32))


def _call(name: str, model: Any, data: Any) -> tuple[Callable[[], Any], int]:
    """Return what is measured as a function without arguments, and the bytes of the weights."""
    from tfprune.evidence import Probe
    from tfprune.mask_computation import compute_masks, ready_plan
    from tfprune.pruning_plan import PruningPlan
    from tfprune.selection import choose_weights

    criterion = Criterion.get("magnitude" if name in (FORWARD, STEP) else name)
    pattern = "filter" if criterion.scores_outputs else "unstructured"
    plan = PruningPlan.create(SPARSITY, criterion, pattern, "uniform")
    # The last layer has no normalization after it.
    exclude = "predictions" if "norm_scale" in criterion.evidence else None
    weights = choose_weights(model, plan.pattern, exclude=exclude)
    plan = ready_plan(plan, weights)
    weight_bytes = sum(4 * weight.size for weight in weights)
    if name == FORWARD:
        return lambda: model(data[0], training=False), weight_bytes
    if name == STEP:
        model.compile("sgd", LOSS)
        return lambda: model.train_on_batch(*data), weight_bytes

    def score() -> None:
        compute_masks(weights, plan, SPARSITY, probe=Probe(model, weights, data, loss=LOSS))

    return score, weight_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small images; tries the machinery")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    cases = QUICK_CASES if options.quick else CASES
    folder = common.SCRATCH if options.quick else common.RESULTS
    rows_path = folder / ("criteria-quick.jsonl" if options.quick else "criteria.jsonl")
    settings = {key: asdict(case) for key, case in cases.items()}
    if options.measure:
        name, key = options.measure
        started = time.perf_counter()
        row = {"name": name, "case": key, **measure(name, cases[key])}
        row |= {"process_seconds": round(time.perf_counter() - started, 1), "settings": settings}
        common.append_row(rows_path, {**row, "environment": common.environment()})
        print(
            f"{name:20} {key:8} {row['seconds']:6.2f} s, first call "
            f"{row['first_bytes'] / row['weight_bytes']:.2f}, repeated "
            f"{row['repeated_bytes'] / row['weight_bytes']:.2f} times the weights",
            flush=True,
        )
        return
    done = {(row["name"], row["case"]) for row in common.read_rows(rows_path, settings)}
    for name in names():
        for key in cases:
            if (name, key) not in done:
                quick = ["--quick"] if options.quick else []
                common.run_worker("benchmarks.criteria", *quick, "--measure", name, key)
    rows = common.read_rows(rows_path, settings)
    print(criteria_report.write(rows, rows_path.with_suffix(""), common.command()))


if __name__ == "__main__":
    main()

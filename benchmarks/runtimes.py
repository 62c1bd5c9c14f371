"""Sparse mobile models on the runtimes they ship to: dense, sparse-encoded, and tfprune's artifact.

"Encoded" is what everybody else ships: the converter's sparse encoding and nothing else. Each cell
compares the three files on one runtime, loaded side by side and timed in turns, and their outputs
with those of the Keras model. Runtimes that are not installed are left out; `tfprune setup-runtime`
says how to get them.

    python -m benchmarks.runtimes
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, runtimes_report

SPARSITIES = (0.7, 0.8, 0.85, 0.9, 0.95)
# Under an emulator a call at 224 would take a minute; the ratios are about the same.
SIZES = {"native": 224, "no-avx": 96, "arm64": 96, "wasm": 224}
TURNS = {"native": 12, "no-avx": 2, "arm64": 2, "wasm": 12}
CALLS_PER_TURN = {"native": 2, "no-avx": 1, "arm64": 1, "wasm": 2}


@dataclass(frozen=True)
class Row:
    """One model at one sparsity in one runtime: milliseconds, and differences from Keras.

    A difference is a fraction of the largest output. None: the runtime refuses the file.
    """

    model: str
    sparsity: float
    runtime: str
    size: int
    dense_ms: float | None
    encoded_ms: float | None
    tfprune_ms: float | None
    dense_difference: float | None
    encoded_difference: float | None
    tfprune_difference: float | None


def mobilenet_v1(keras: Any, size: int) -> Any:
    """MobileNet whose convolutions of stride 2 are padded by 1 on every side."""
    layers = keras.layers

    def block(x: Any, convolution: Any, stride: int) -> Any:
        if stride == 2:
            x = layers.ZeroPadding2D(1)(x)
        return layers.ReLU(6.0)(layers.BatchNormalization()(convolution(x)))

    def padding(stride: int) -> dict[str, Any]:
        return {"strides": stride, "padding": "valid" if stride == 2 else "same", "use_bias": False}

    inputs = keras.Input((size, size, 3))
    x = block(inputs, layers.Conv2D(32, 3, **padding(2)), 2)
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5]
    for filters, stride in [*plan, (1024, 2), (1024, 1)]:
        x = block(x, layers.DepthwiseConv2D(3, **padding(stride)), stride)
        x = block(x, layers.Conv2D(filters, 1, **padding(1)), 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(1000)(x), name="mobilenet_v1")


def stock(name: str) -> Any:
    """A model of keras.applications as it is, with logits."""

    def build(keras: Any, size: int) -> Any:
        build_stock = getattr(keras.applications, name)
        return build_stock(weights=None, input_shape=(size, size, 3), classifier_activation=None)

    return build


MODELS = {
    "MobileNetV1, padded evenly": mobilenet_v1,
    "MobileNetV2": stock("MobileNetV2"),
    "EfficientNetB0": stock("EfficientNetB0"),
}


def randomize(model: Any, keras: Any) -> None:
    """Give batch normalization scales, offsets and statistics that change something."""
    rng = np.random.default_rng(0)
    for norm in model.layers:
        if isinstance(norm, keras.layers.BatchNormalization):
            shape = norm.gamma.shape
            norm.gamma.assign(1 + 0.2 * rng.standard_normal(shape))
            norm.beta.assign(0.2 * rng.standard_normal(shape))
            norm.moving_mean.assign(0.2 * rng.standard_normal(shape))
            norm.moving_variance.assign(0.5 + rng.random(shape))


def images(model: Any, count: int) -> np.ndarray:
    """Return random images of the size and range of a model."""
    top = 255 if model.name.startswith("efficientnet") else 1
    rng = np.random.default_rng(1)
    return (top * rng.random((count, *model.input_shape[1:]))).astype("float32")


def pruned(build: Any, keras: Any, size: int, sparsity: float) -> Any:
    """Return a model whose 1x1 filters are pruned."""
    import tfprune

    keras.utils.set_random_seed(0)

    def pointwise(layer: Any) -> bool:
        return isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1)

    model = tfprune.prune_once(build(keras, size), sparsity, include=pointwise)
    randomize(model, keras)
    return model


def write_variants(model: Any, folder: Path) -> dict[str, Path]:
    """Write the three files."""
    import tfprune
    from tfprune.export.savedmodel import write_saved_model
    from tfprune.export.signature import signature_of
    from tfprune.export.tflite import convert

    write_saved_model(model, signature_of(model), folder / "saved_model")
    paths = {}
    for name in ("dense", "encoded"):
        content = convert(folder / "saved_model", optimize=False, sparse=name == "encoded")
        paths[name] = folder / f"{name}.tflite"
        paths[name].write_bytes(content)
    report = tfprune.export_model(model, folder / "export", "tflite", runs=1, runtimes="native")
    print(report["tflite"].note, flush=True)
    return {**paths, "tfprune": report.path("tflite")}


def measure(runner_class: Any, paths: dict[str, Path], inputs: dict, expected: Any) -> dict:
    """Run and time the files in one runtime, in turns."""
    from tfprune.errors import VerificationError
    from tfprune.export.runners.browser import Browser

    name = runner_class.NAME
    found: dict[str, Any] = {}
    runners: dict[str, Any] = {}
    with ExitStack() as stack:
        # One page for all files: they share whatever the machine is doing.
        options = {"browser": stack.enter_context(Browser())} if name == "wasm" else {}
        for variant, path in paths.items():
            found |= {f"{variant}_ms": None, f"{variant}_difference": None}
            try:
                runner = stack.enter_context(runner_class(path, 1, **options))
                (output,) = runner.run(inputs).values()
            except VerificationError as error:
                print(error, flush=True)
                continue
            runners[variant] = runner
            difference = np.abs(output - expected).max() / np.abs(expected).max()
            found[f"{variant}_difference"] = float(difference)
        times: dict[str, list[float]] = {variant: [] for variant in runners}
        for _ in range(TURNS[name]):
            for variant, runner in runners.items():
                times[variant] += runner.time(inputs, CALLS_PER_TURN[name])
    return found | {f"{variant}_ms": statistics.median(own) for variant, own in times.items()}


def measure_all(
    name: str, sparsity: float, wanted: list[Any], keras: Any
) -> Iterator[dict[str, Any]]:
    """Yield the row of each runtime, for one model at one sparsity."""
    from tfprune.export.signature import signature_of

    for size in sorted({SIZES[runner.NAME] for runner in wanted}):
        started = time.perf_counter()
        model = pruned(MODELS[name], keras, size, sparsity)
        x = images(model, 1)
        expected = model(x, training=False).numpy()
        inputs = {signature_of(model).specs[0].name: x}
        with tempfile.TemporaryDirectory() as folder:
            paths = write_variants(model, Path(folder))
            for runner in wanted:
                if SIZES[runner.NAME] == size:
                    cells = measure(runner, paths, inputs, expected)
                    row = asdict(Row(name, sparsity, runner.NAME, size, **cells))
                    yield row | {"seconds": time.perf_counter() - started}
                    started = time.perf_counter()


def main() -> None:
    """Run all cells that are missing, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; write the report of what is there"
    )
    arguments = parser.parse_args()
    log = (common.RESULTS / "runtimes").with_suffix(".jsonl")
    settings = {"turns": TURNS, "calls_per_turn": CALLS_PER_TURN, "seed": 0}
    done = common.read_rows(log, settings)
    if not arguments.report:
        for row in missing_rows(done):
            row |= {"load": os.getloadavg()[0], "settings": settings}
            common.append_row(log, row)
            done.append(row)
            print(row, flush=True)
    write_report(done)


def missing_rows(done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Measure and yield what is not among the finished rows."""
    import keras

    from tfprune.export.runners import split_runtimes

    present, missing = split_runtimes()
    for name, command in missing.items():
        print(f"Left out: {name}, which needs {command}", flush=True)
    finished = {(row["model"], row["sparsity"], row["runtime"]) for row in done}
    for sparsity in reversed(SPARSITIES):  # A cut run has the most interesting ones of all models.
        for name in MODELS:
            wanted = [r for r in present if (name, sparsity, r.NAME) not in finished]
            yield from measure_all(name, sparsity, wanted, keras)


def write_report(done: list[dict[str, Any]]) -> None:
    """Write table, data and plot."""
    stem = common.RESULTS / "runtimes"
    models, runtimes = list(MODELS), list(SIZES)
    rows = sorted(
        done,
        key=lambda row: (
            models.index(row["model"]),
            row["sparsity"],
            runtimes.index(row["runtime"]),
        ),
    )
    with stem.with_suffix(".csv").open("w", newline="") as file:
        names = [field.name for field in fields(Row)]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    runtimes_report.plot(rows, stem.with_suffix(".png"))
    cells = len(MODELS) * len(SPARSITIES) * len(SIZES)
    text = runtimes_report.markdown(rows, cells)
    stem.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""Ordinary pruned networks in the browser: dense, sparse-encoded, and compiled for sparse mode.

Every convolution but the first is pruned. The three files of a cell are timed in turns in one page
of LiteRT.js, and compared with the Keras model; "encoded" is the converter's sparse encoding alone.
Cells that are finished are kept, and a later call goes on from there.

    python -m benchmarks.sparse_runtime [--models ResNet50 ...] [--sparsities 0.9 ...]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.runtimes import CALLS_PER_TURN, TURNS, images, measure, randomize, stock
from benchmarks.runtimes_report import PACKAGES

SIZE = 224
SPARSITIES = {"ResNet50": (0.7, 0.8, 0.9, 0.95)}
OTHERS = (0.9,)


def resnet18(keras: Any, size: int) -> Any:
    """A residual network of 3x3 convolutions, as deep as ResNet-18."""
    layers = keras.layers

    def normalized(x: Any, filters: int, kernel: int, stride: int = 1) -> Any:
        convolution = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False)
        return layers.BatchNormalization()(convolution(x))

    inputs = keras.Input((size, size, 3))
    x = layers.ReLU()(normalized(inputs, 64, 7, 2))
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for filters in (64, 128, 256, 512):
        for stride in (1 if filters == 64 else 2, 1):
            shortcut = x if x.shape[-1] == filters else normalized(x, filters, 1, stride)
            y = layers.ReLU()(normalized(x, filters, 3, stride))
            x = layers.ReLU()(layers.Add()([normalized(y, filters, 3), shortcut]))
    x = layers.Dense(1000)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x, name="resnet18")


MODELS = {
    "ResNet50": stock("ResNet50"),
    "ResNet-18": resnet18,
    "VGG16": stock("VGG16"),
    "DenseNet121": stock("DenseNet121"),
    "MobileNetV2": stock("MobileNetV2"),
    "EfficientNetB0": stock("EfficientNetB0"),
}
COLUMNS = (
    "model", "sparsity", "dense_ms", "encoded_ms", "tfprune_ms", "gain", "predicted",
    "encoded_difference", "tfprune_difference", "dense_bytes", "tfprune_bytes",
    "dense_gzip_bytes", "tfprune_gzip_bytes", "compile_s", "memory_mb",
)  # fmt: skip


def pruned(build: Any, keras: Any, sparsity: float) -> Any:
    """Return a model of which all convolutions but the first are pruned."""
    import tfprune

    keras.utils.set_random_seed(0)
    model = build(keras, SIZE)
    convolutions = [layer for layer in model.layers if type(layer) is keras.layers.Conv2D]
    model = tfprune.prune_once(model, sparsity, include=[c.name for c in convolutions[1:]])
    randomize(model, keras)
    return model


def write_variants(model: Any, folder: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Write the three files; return them, and what there is to tell of the compilation."""
    from tfprune.errors import UnsupportedModelError
    from tfprune.export.savedmodel import write_saved_model
    from tfprune.export.signature import signature_of
    from tfprune.export.sparse_runtime.compiler import compile_file
    from tfprune.export.tflite import convert

    write_saved_model(model, signature_of(model), folder / "saved_model")
    contents = {
        name: convert(folder / "saved_model", optimize=False, sparse=name == "encoded")
        for name in ("dense", "encoded")
    }
    started, predicted = time.perf_counter(), 1.0
    try:
        compiled = compile_file(contents["dense"])
    except UnsupportedModelError as error:
        print(error, flush=True)
        contents["tfprune"] = contents["dense"]
    else:
        contents["tfprune"], predicted = compiled.content, compiled.gain
    told = {"compile_s": time.perf_counter() - started, "predicted": predicted}
    told["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    for name in ("dense", "tfprune"):
        told[f"{name}_bytes"] = len(contents[name])
        told[f"{name}_gzip_bytes"] = len(gzip.compress(contents[name], 6))
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / f"{name}.tflite"
        paths[name].write_bytes(content)
    return paths, told


def measure_cell(name: str, sparsity: float, keras: Any) -> dict[str, Any]:
    """Return the row of one model at one sparsity."""
    from tfprune.export.runners import RUNTIMES
    from tfprune.export.signature import signature_of

    model = pruned(MODELS[name], keras, sparsity)
    x = images(model, 1)
    expected = model(x, training=False).numpy()
    inputs = {signature_of(model).specs[0].name: x}
    with tempfile.TemporaryDirectory() as folder:
        paths, told = write_variants(model, Path(folder))
        cells = measure(RUNTIMES["wasm"], paths, inputs, expected)
    gain = cells["dense_ms"] / cells["tfprune_ms"]
    return {"model": name, "sparsity": sparsity, **cells, **told, "gain": gain}


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the report."""

    def milliseconds(value: float | None) -> str:
        return "refused" if value is None else f"{value:.1f}"

    table = common.markdown_table(
        ["model", "zeros", "dense ms", "encoded ms", "tfprune ms", "gain", "predicted",
         "differs by", "MB", "gzip MB", "compiled in"],
        [
            [
                row["model"],
                f"{row['sparsity']:.0%}",
                *(milliseconds(row[f"{name}_ms"]) for name in ("dense", "encoded", "tfprune")),
                f"{row['gain']:.2f}x",
                f"{row['predicted']:.2f}x",
                f"{row['tfprune_difference']:.0e}",
                f"{row['dense_bytes'] / 1e6:.1f} -> {row['tfprune_bytes'] / 1e6:.1f}",
                f"{row['dense_gzip_bytes'] / 1e6:.1f} -> {row['tfprune_gzip_bytes'] / 1e6:.1f}",
                f"{row['compile_s']:.1f} s",
            ]
            for row in rows
        ],
    )  # fmt: skip
    about = common.environment(PACKAGES)
    return (
        f"# Pruned networks in the browser, {SIZE}x{SIZE}\n\n"
        f"`{common.command()}`: LiteRT.js in headless Chromium, one thread, medians of calls in "
        f"turns. {about['machine']}; {about['versions']}.\n\n{table}\n"
    )


def main() -> None:
    """Run all cells that are missing, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sparsities", nargs="+", type=float)
    options = parser.parse_args()
    import keras

    from tfprune.export.runners import RUNTIMES

    if missing := RUNTIMES["wasm"].missing():
        raise SystemExit(f"This needs a browser with LiteRT.js: {missing}")
    stem = common.RESULTS / "sparse_runtime"
    settings = {"turns": TURNS["wasm"], "calls_per_turn": CALLS_PER_TURN["wasm"], "size": SIZE}
    done = common.read_rows(stem.with_suffix(".jsonl"), settings)
    finished = {(row["model"], row["sparsity"]) for row in done}
    for name in options.models:
        for sparsity in options.sparsities or SPARSITIES.get(name, OTHERS):
            if (name, sparsity) in finished:
                continue
            row = measure_cell(name, sparsity, keras)
            row |= {"load": os.getloadavg()[0], "settings": settings}
            common.append_row(stem.with_suffix(".jsonl"), row)
            done.append(row)
            print(row, flush=True)
    done.sort(key=lambda row: (list(MODELS).index(row["model"]), row["sparsity"]))
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(done)
    text = markdown(done)
    stem.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

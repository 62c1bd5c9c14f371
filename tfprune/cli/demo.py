"""The whole journey on real data: train, prune inside `fit`, strip, export, verify, compare.

It uses the public API only and reads as an example of it. The dense model is exported as well, so
that the bytes and latencies of the comparison are of the same formats, made the same way.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import tfprune
from tfprune.cli.console import native_chatter_dropped, progress_console
from tfprune.cli.datasets import Dataset, load_dataset
from tfprune.cli.files import save_model
from tfprune.cli.fit_progress import FitProgress
from tfprune.errors import ArtifactError

FORMATS = ("savedmodel", "tflite")
"""What both models are exported to."""

_BATCH = 32
_UPDATES = 25
_DEFAULT_FOLDER = "tfprune-demo"
# Small data needs more epochs for the same number of training steps.
_WANTED_EXAMPLES, _FEWEST_EPOCHS, _MOST_EPOCHS = 100_000, 3, 10


@dataclass(frozen=True)
class Side:
    """One column of the comparison.

    Attributes:
        accuracy: fraction of the held-out images that are classified right.
        profile: parameters, FLOPs and bytes of the model.
        report: the exported artifacts, verified and timed.
    """

    accuracy: float
    profile: tfprune.Profile
    report: tfprune.ExportReport

    @property
    def kernel_zeros(self) -> float:
        """Fraction of zeros in the kernels, as the SavedModel stores them."""
        return self.report["savedmodel"].sparsity

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `json` can write."""
        return {
            "accuracy": self.accuracy,
            "profile": self.profile.to_dict(),
            "export": self.report.to_dict(),
        }


@dataclass(frozen=True)
class DemoResult:
    """What the demo did and found.

    Attributes:
        data: name of the data set.
        seed: the seed of weights and shuffling.
        sparsity: the sparsity that was asked for.
        epochs: dense epochs, and again as many while pruning.
        seconds: wall time from the loading of the data to the last check.
        directory: folder with both models and their artifacts.
        before: the dense model.
        after: the pruned and stripped model.
    """

    data: str
    seed: int
    sparsity: float
    epochs: int
    seconds: float
    directory: Path
    before: Side
    after: Side

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `json` can write."""
        return {
            "data": self.data,
            "seed": self.seed,
            "sparsity": self.sparsity,
            "epochs": self.epochs,
            "seconds": round(self.seconds, 1),
            "directory": str(self.directory),
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }


def run_demo(
    *,
    data: str = "digits",
    sparsity: float = 0.9,
    epochs: int | None = None,
    seed: int = 0,
    image_size: int = 64,
    directory: Path | None = None,
) -> DemoResult:
    """Train a small CNN, prune it, export it, and compare it with the dense one.

    Args:
        data: `"digits"`, `"fashion-mnist"` or a folder; see `load_dataset`.
        sparsity: target fraction of zeros in the prunable weights.
        epochs: dense epochs, and again as many while pruning; by the size of the data if None.
        seed: seed of weights and shuffling.
        image_size: pixels per side for a folder of images.
        directory: folder to write to; it may exist if it is empty. By default the first of
            `tfprune-demo`, `tfprune-demo-2`, ... that does not exist.

    Raises:
        ArtifactError: the data cannot be read, or the folder is in use.
    """
    started = time.perf_counter()
    directory = _unused_folder(directory)
    with progress_console.status(f"Loading {data}"):
        dataset = load_dataset(data, image_size=image_size)
    directory.mkdir(parents=True, exist_ok=True)
    epochs = epochs or _default_epochs(len(dataset.x_train))
    keras.utils.set_random_seed(seed)
    model = build_cnn(dataset.x_train.shape[1:], dataset.classes)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=progress_console,
    ) as progress:
        _fit(model, dataset, epochs, FitProgress(progress, "Train the dense model"))
        before = _finish(model, dataset, directory / "dense", progress)

        pruned = tfprune.prune(
            model,
            schedule=tfprune.schedules.PolynomialDecay(
                0.0,
                sparsity,
                end_step=tfprune.schedules.Fraction(0.6),
                frequency=max(epochs * math.ceil(len(dataset.x_train) / _BATCH) // _UPDATES, 1),
            ),
            # One threshold for all: the small first layer keeps more than a tenth of its weights.
            allocation="global",
        )
        shown = FitProgress(progress, f"Prune it to {sparsity:.0%} zeros")
        _fit(pruned, dataset, epochs, tfprune.callbacks.UpdateMasks(), shown)
        after = _finish(tfprune.strip(pruned), dataset, directory / "pruned", progress)
    return DemoResult(
        data=dataset.name,
        seed=seed,
        sparsity=sparsity,
        epochs=epochs,
        seconds=time.perf_counter() - started,
        directory=directory,
        before=before,
        after=after,
    )


def build_cnn(input_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Build the demo's CNN: three convolutions with batch norm, global pooling, a dense head.

    Args:
        input_shape: height, width, channels.
        classes: number of logits.
    """
    layers = keras.layers
    # Larger images are halved at once; 8x8 digits have no pixel to give away.
    first_stride = 2 if min(input_shape[:2]) >= 16 else 1
    model = keras.Sequential([keras.Input(input_shape)], name="demo_cnn")
    for filters, stride, pool in ((32, first_stride, False), (64, 1, True), (64, 1, True)):
        model.add(layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
        if pool:
            model.add(layers.MaxPooling2D(padding="same"))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(classes))
    return model


def _default_epochs(examples: int) -> int:
    return min(max(_WANTED_EXAMPLES // examples, _FEWEST_EPOCHS), _MOST_EPOCHS)


def _compile(model: keras.Model) -> None:
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def _fit(
    model: keras.Model, data: Dataset, epochs: int, *callbacks: keras.callbacks.Callback
) -> None:
    _compile(model)
    model.fit(
        data.x_train,
        data.y_train,
        batch_size=_BATCH,
        epochs=epochs,
        validation_data=(data.x_test, data.y_test),
        verbose=0,
        callbacks=list(callbacks),
    )


def _finish(model: keras.Model, data: Dataset, directory: Path, progress: Progress) -> Side:
    """Evaluate, profile, save and export one model."""
    task = progress.add_task(f"Export and verify {directory.name}", total=None)
    _compile(model)
    _, accuracy = model.evaluate(data.x_test, data.y_test, verbose=0)
    save_model(model, directory.with_suffix(".keras"))
    with native_chatter_dropped():
        report = tfprune.export_model(
            model,
            directory,
            formats=FORMATS,
            verification_data=data.x_test,
        )
    progress.update(task, total=1, completed=1)
    return Side(float(accuracy), tfprune.profile(model), report)


def _unused_folder(directory: Path | None) -> Path:
    if directory is None:
        names = (f"{_DEFAULT_FOLDER}{f'-{n}' if n > 1 else ''}" for n in range(1, 1000))
        directory = next((p for p in map(Path, names) if not p.exists()), Path(_DEFAULT_FOLDER))
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ArtifactError(f"{directory} is in use. Pass a new or an empty folder as --out.")
    return directory

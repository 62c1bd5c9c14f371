"""What the methods benchmark trains: methods as arguments of `tfprune.prune`, and budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import tfprune
from benchmarks import common

DENSE = "dense"
TRAINING = "training"
ONE_SHOT = "one-shot"
TFMOT = "tfmot"
RECIPE = "recipe"


@dataclass(frozen=True)
class Recipe:
    """One way to train a sparse model.

    Args:
        options: arguments of `tfprune.prune`, besides the schedule and the data.
        ramp_end: part of the steps with pruning after which the final sparsity is reached.
        from_scratch: whether an untrained model is sparse from the first step on, and trained for
            the epochs of the dense start and of the pruning together.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    ramp_end: float = 2 / 3
    from_scratch: bool = False

    def __str__(self) -> str:
        options = ", ".join(f'{name}="{value}"' for name, value in self.options.items())
        parts = [options or "the defaults"]
        if self.from_scratch:
            parts.append("sparse from scratch")
        elif self.ramp_end != Recipe.ramp_end:
            parts.append(f"final sparsity after {self.ramp_end:.0%} of the steps")
        return "; ".join(parts)


METHODS = {
    "magnitude, uniform": Recipe(),
    "magnitude, global": Recipe({"allocation": "global"}),
    "magnitude, ERK": Recipe({"allocation": "erk"}),
    "magnitude, LAMP": Recipe({"allocation": "lamp"}),
    "movement, global": Recipe({"criterion": "movement", "allocation": "global"}),
    "taylor, global": Recipe({"criterion": "taylor", "allocation": "global"}),
    "RigL, ERK": Recipe({"criterion": "rigl", "allocation": "erk"}, from_scratch=True),
    RECIPE: Recipe({"allocation": "lamp"}, ramp_end=1 / 2),
}
"""The methods of tfprune by name; `TFMOT` is the peer: magnitude, uniform."""

ONE_SHOTS: dict[str, Callable[[Any, float, np.ndarray], Any]] = {
    "magnitude, uniform": lambda model, sparsity, images: tfprune.prune_once(model, sparsity),
    "magnitude, global": lambda model, sparsity, images: tfprune.prune_once(
        model, sparsity, allocation="global"
    ),
    "Wanda": lambda model, sparsity, images: tfprune.prune_once(
        model, sparsity, criterion="wanda", data=images
    ),
    "SparseGPT": lambda model, sparsity, images: tfprune.methods.sparse_gpt(
        model, sparsity, data=images
    ),
}
"""One-shot pruning without training, as functions of `(model, sparsity, calibration images)`."""


@dataclass(frozen=True)
class Study:
    """One model, what is done to it, and the budget, the same for all methods.

    Args:
        key: short name, for `--only` and the files.
        model: name of the function in `benchmarks.models`.
        methods: keys of `METHODS`, and `TFMOT`.
        sparsities: fractions of zeros in the kernels after training.
        one_shot_sparsities: the same for one-shot pruning; empty to leave it out.
        dense_epochs: epochs of the dense training that all methods start from.
        prune_epochs: epochs of training with pruning.
        seeds: each seeds one dense model and the order of the batches.
        train_images: training images used, from the first on; the test is always on all 10,000.
        calibration_images: how many of them are the `data=` of criteria.
        batch: images in a batch.
        dense_rate: first learning rate of the dense training; a cosine takes it to zero.
        prune_rate: the same for the training with pruning.
        frequency: steps between two mask updates.
        name: begins the names of the result files.
        folder: where they go.
    """

    key: str
    model: str
    methods: tuple[str, ...]
    sparsities: tuple[float, ...]
    one_shot_sparsities: tuple[float, ...]
    dense_epochs: int
    prune_epochs: int
    seeds: tuple[int, ...] = (0, 1, 2)
    train_images: int = 15_000
    calibration_images: int = 512
    batch: int = 128
    dense_rate: float = 2e-3
    prune_rate: float = 1e-3
    frequency: int = 20
    name: str = "methods"
    folder: Path = common.RESULTS

    @property
    def rows_path(self) -> Path:
        """The file of the finished cells."""
        return self.folder / f"{self.name}_{self.key}.jsonl"

    @property
    def steps(self) -> int:
        """Training steps with pruning."""
        return self.prune_epochs * (self.train_images // self.batch)

    def end_step(self, ramp_end: float) -> int:
        """Return the step of the final sparsity; tfmot needs it on the grid of the updates."""
        return int(ramp_end * self.steps) // self.frequency * self.frequency

    def budget(self) -> dict[str, Any]:
        """Return what a finished cell must have been made with, as JSON values."""
        return {key: value for key, value in asdict(self).items() if key not in _NOT_BUDGET}

    def dense_weights(self, seed: int) -> Path:
        """Return the file of the dense model that all methods start from."""
        return common.SCRATCH / f"{self.name}-{self.key}-dense-{seed}.npz"

    def cells(self, toolkit: str) -> list[tuple[str, str, float]]:
        """Return the (stage, method, sparsity) cells of a toolkit for each seed, in order.

        Args:
            toolkit: "tfprune" (which also trains the dense start of both) or "tfmot".
        """
        cells = [(DENSE, DENSE, 0.0)] if toolkit == "tfprune" else []
        cells += [
            (TRAINING, method, sparsity)
            for method in self.methods
            if (method == TFMOT) == (toolkit == "tfmot")
            for sparsity in self.sparsities
        ]
        if toolkit == "tfprune":
            cells += [
                (ONE_SHOT, method, sparsity)
                for method in ONE_SHOTS
                for sparsity in self.one_shot_sparsities
            ]
        return cells


_NOT_BUDGET = (
    "key",
    "methods",
    "sparsities",
    "one_shot_sparsities",
    "seeds",
    "name",
    "folder",
)

FULL = {
    study.key: study
    for study in (
        Study(
            "cnn",
            "small_cnn",
            methods=(TFMOT, *METHODS),
            sparsities=(0.8, 0.9, 0.95, 0.98),
            one_shot_sparsities=(),
            dense_epochs=8,
            prune_epochs=6,
        ),
        Study(
            "oneshot",
            "small_cnn",
            methods=(),
            sparsities=(),
            one_shot_sparsities=(0.5, 0.7, 0.8, 0.9, 0.95),
            dense_epochs=8,
            prune_epochs=0,
        ),
        *(
            Study(
                key,
                key,
                methods=(TFMOT, "magnitude, uniform", "magnitude, global"),
                sparsities=(0.9, 0.95),
                one_shot_sparsities=(),
                dense_epochs=5,
                prune_epochs=4,
            )
            for key in ("lstm", "transformer")
        ),
    )
}

QUICK = {
    key: replace(
        study,
        sparsities=study.sparsities[-2:],
        one_shot_sparsities=study.one_shot_sparsities[-2:],
        dense_epochs=1,
        prune_epochs=min(study.prune_epochs, 1),
        seeds=(0, 1),
        train_images=2_000,
        calibration_images=64,
        frequency=5,
        name="methods-quick",
        folder=common.SCRATCH,
    )
    for key, study in FULL.items()
}

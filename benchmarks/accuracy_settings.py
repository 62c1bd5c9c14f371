"""What the accuracy benchmark trains, in full and as a quick trial of the machinery."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import common


@dataclass(frozen=True)
class Settings:
    """Budget of one run, the same for both toolkits.

    Args:
        name: stem of the result files.
        folder: where they go.
        seeds: each seeds one dense model and the order of the batches.
        sparsities: fractions of zeros in the kernels.
        train_images: training images used, from the first on; the test is always on all 10,000.
        batch: images in a batch.
        dense_epochs: epochs of the dense training that both toolkits start from.
        prune_epochs: epochs of training with pruning (and of the dense control).
        dense_rate: first learning rate of the dense training; a cosine takes it to zero.
        prune_rate: the same for the training with pruning.
        frequency: steps between two mask updates.
    """

    name: str = "accuracy"
    folder: Path = common.RESULTS
    seeds: tuple[int, ...] = (0, 1, 2)
    sparsities: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95)
    train_images: int = 60_000
    batch: int = 128
    dense_epochs: int = 6
    prune_epochs: int = 5
    dense_rate: float = 2e-3
    prune_rate: float = 1e-3
    frequency: int = 100

    @property
    def rows_path(self) -> Path:
        """The file of the finished cells."""
        return self.folder / f"{self.name}.jsonl"

    @property
    def steps(self) -> int:
        """Training steps with pruning."""
        return self.prune_epochs * (self.train_images // self.batch)

    @property
    def end_step(self) -> int:
        """Step of the final sparsity, at two thirds of the steps; tfmot needs it on the grid."""
        return 2 * self.steps // 3 // self.frequency * self.frequency

    def budget(self) -> dict[str, Any]:
        """Return what a finished cell must have been made with, as JSON values."""
        plain = {key: value for key, value in asdict(self).items() if key not in _NOT_BUDGET}
        return {**plain, "end_step": self.end_step}

    def dense_weights(self, seed: int) -> Path:
        """Return the file of the dense model that both toolkits start from."""
        return common.SCRATCH / f"{self.name}-dense-{seed}.npz"


_NOT_BUDGET = ("name", "folder", "seeds", "sparsities")

FULL = Settings()
QUICK = Settings(
    name="accuracy-quick",
    folder=common.SCRATCH,
    seeds=(0, 1),
    sparsities=(0.5, 0.9),
    train_images=6_000,
    dense_epochs=1,
    prune_epochs=1,
    frequency=10,
)

"""The training cells of one toolkit and one seed, in one process; `accuracy.py` starts it."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks import accuracy_settings, common, data, models, toolkits, training
from benchmarks.accuracy_settings import Settings

DENSE = "dense"
PRUNE = "prune"


def missing_cells(
    rows: list[dict[str, Any]], settings: Settings, toolkit: str, seed: int
) -> list[tuple[str, float]]:
    """Return the (stage, sparsity) cells that a toolkit still has to train for a seed.

    Args:
        rows: the finished cells.
        settings: what is trained.
        toolkit: "tfprune" (which also trains the dense start of both) or "tfmot".
        seed: one of the seeds.
    """
    wanted = [(DENSE, 0.0)] if toolkit == "tfprune" else []
    wanted += [(PRUNE, sparsity) for sparsity in (0.0, *settings.sparsities)]
    done = {
        (row["stage"], row["sparsity"])
        for row in rows
        if (row["toolkit"], row["seed"]) == (toolkit, seed)
    }
    return [cell for cell in wanted if cell not in done]


class Trainer:
    """Trains one cell after the other from the same data.

    Args:
        toolkit: the toolkit of this process.
        settings: the budget.
        seed: seed of the dense start and of the order of the batches.
    """

    def __init__(self, toolkit: toolkits.Toolkit, settings: Settings, seed: int) -> None:
        self.toolkit, self.settings, self.seed = toolkit, settings, seed
        self.train = tuple(array[: settings.train_images] for array in data.load("train"))
        self.test = data.load("t10k")

    def cell(self, stage: str, sparsity: float) -> dict[str, Any]:
        """Train and test one cell; return its measurements."""
        keras, settings = self.toolkit.keras, self.settings
        keras.backend.clear_session()
        keras.utils.set_random_seed(self.seed)
        model = models.small_cnn(keras)
        if stage == DENSE:
            fit_seconds = self._fit(model, settings.dense_epochs, settings.dense_rate, self.seed)
            training.save_weights(model, settings.dense_weights(self.seed))
        else:
            training.load_weights(model, settings.dense_weights(self.seed))
            pruned, callbacks = model, []
            if sparsity:
                pruned = self.toolkit.prune(
                    model,
                    0.0,
                    sparsity,
                    begin_step=0,
                    end_step=settings.end_step,
                    frequency=settings.frequency,
                )
                callbacks = [self.toolkit.callback()]
            # Other permutations than those of the dense training.
            order_seed = 1000 + self.seed
            fit_seconds = self._fit(
                pruned, settings.prune_epochs, settings.prune_rate, order_seed, callbacks
            )
            model = self.toolkit.strip(pruned) if sparsity else pruned
        kernels = [np.asarray(kernel) for kernel in toolkits.kernels(model)]
        return {
            "accuracy": training.accuracy(model, self.test),
            "zeros": sum(int(np.count_nonzero(kernel == 0)) for kernel in kernels),
            "prunable": sum(kernel.size for kernel in kernels),
            "parameters": model.count_params(),
            "fit_seconds": round(fit_seconds, 2),
        }

    def _fit(
        self, model: Any, epochs: int, rate: float, order_seed: int, callbacks: Any = ()
    ) -> float:
        return training.fit(
            model,
            self.toolkit,
            self.train,
            batch=self.settings.batch,
            epochs=epochs,
            rate=rate,
            order_seed=order_seed,
            callbacks=callbacks,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toolkit", choices=toolkits.NAMES, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    settings = accuracy_settings.QUICK if options.quick else accuracy_settings.FULL

    # Also counts what comes before the first cell: imports and data.
    started = time.perf_counter()
    trainer = Trainer(toolkits.load(options.toolkit), settings, options.seed)
    rows = common.read_rows(settings.rows_path, settings.budget())
    for stage, sparsity in missing_cells(rows, settings, options.toolkit, options.seed):
        cell = trainer.cell(stage, sparsity)
        ended = time.perf_counter()
        row = {
            "toolkit": options.toolkit,
            "seed": options.seed,
            "stage": stage,
            "sparsity": sparsity,
            **cell,
            "seconds": round(ended - started, 2),
            "settings": settings.budget(),
            "environment": common.environment(),
        }
        common.append_row(settings.rows_path, row)
        print(
            f"{options.toolkit:8} seed {options.seed} {stage:6} {sparsity:.0%}: "
            f"accuracy {cell['accuracy']:.4f}, zeros {cell['zeros'] / cell['prunable']:.2%}, "
            f"fit {cell['fit_seconds']:.1f} s",
            flush=True,
        )
        started = ended


if __name__ == "__main__":
    main()

"""The cells of one study, toolkit and seed, in one process; `methods.py` starts it."""

from __future__ import annotations

import argparse
import time
from typing import Any

import tfprune
from benchmarks import common, data, methods_settings, models, toolkits, training
from benchmarks.methods_settings import (
    DENSE,
    METHODS,
    ONE_SHOT,
    ONE_SHOTS,
    TFMOT,
    TRAINING,
    Recipe,
    Study,
)
from tfprune.moments import Fraction
from tfprune.schedules import ConstantSparsity, PolynomialDecay, Schedule

Cell = tuple[str, str, float]


def missing_cells(rows: list[dict[str, Any]], study: Study, toolkit: str, seed: int) -> list[Cell]:
    """Return the (stage, method, sparsity) cells that a toolkit still has to make for a seed."""
    done = {
        (row["stage"], row["method"], row["sparsity"])
        for row in rows
        if (row["toolkit"], row["seed"]) == (toolkit, seed)
    }
    return [cell for cell in study.cells(toolkit) if cell not in done]


class Trainer:
    """Makes one cell after the other from the same data.

    Args:
        toolkit: the toolkit of this process.
        study: model and budget.
        seed: seed of the dense start and of the order of the batches.
    """

    def __init__(self, toolkit: toolkits.Toolkit, study: Study, seed: int) -> None:
        self.toolkit, self.study, self.seed = toolkit, study, seed
        shape = self._build().input_shape[1:]
        self.train, self.test = (
            (images.reshape(-1, *shape), labels)
            for images, labels in (data.load("train"), data.load("t10k"))
        )
        self.train = tuple(array[: study.train_images] for array in self.train)
        self.calibration = tuple(array[: study.calibration_images] for array in self.train)

    def cell(self, stage: str, method: str, sparsity: float) -> dict[str, Any]:
        """Make and test one cell; return its measurements."""
        self.toolkit.keras.backend.clear_session()
        self.toolkit.keras.utils.set_random_seed(self.seed)
        model = self._build()
        if stage == DENSE:
            seconds = self._fit_dense(model, self.study.dense_epochs)
            training.save_weights(model, self.study.dense_weights(self.seed))
        elif stage == ONE_SHOT:
            training.load_weights(model, self.study.dense_weights(self.seed))
            started = time.perf_counter()
            model = ONE_SHOTS[method](model, sparsity, self.calibration[0])
            seconds = time.perf_counter() - started
        elif method == TFMOT:
            model, seconds = self._prune_with_tfmot(model, sparsity)
        else:
            model, seconds = self._prune(model, METHODS[method], sparsity)
        kinds = toolkits.zeros_by_kind(model)
        return {
            "accuracy": training.accuracy(model, self.test),
            "zeros": sum(zeros for zeros, _ in kinds.values()),
            "prunable": sum(size for _, size in kinds.values()),
            "kinds": kinds,
            "parameters": model.count_params(),
            "method_seconds": round(seconds, 2),
        }

    def _build(self) -> Any:
        return getattr(models, self.study.model)(self.toolkit.keras)

    def _prune(self, model: Any, recipe: Recipe, sparsity: float) -> tuple[Any, float]:
        if not recipe.from_scratch:
            training.load_weights(model, self.study.dense_weights(self.seed))
        # Criteria that look at no data leave it alone.
        pruned = tfprune.prune(
            model,
            schedule=_schedule(self.study, recipe, sparsity),
            data=self.calibration,
            **recipe.options,
        )
        if recipe.from_scratch:
            epochs = self.study.dense_epochs + self.study.prune_epochs
            seconds = self._fit_dense(pruned, epochs, [tfprune.callbacks.UpdateMasks()])
        else:
            seconds = self._fit_pruning(pruned, [tfprune.callbacks.UpdateMasks()])
        return tfprune.strip(pruned), seconds

    def _prune_with_tfmot(self, model: Any, sparsity: float) -> tuple[Any, float]:
        training.load_weights(model, self.study.dense_weights(self.seed))
        pruned = self.toolkit.prune(
            model,
            0.0,
            sparsity,
            begin_step=0,
            end_step=self.study.end_step(Recipe.ramp_end),
            frequency=self.study.frequency,
        )
        seconds = self._fit_pruning(pruned, [self.toolkit.callback()])
        return self.toolkit.strip(pruned), seconds

    def _fit_dense(self, model: Any, epochs: int, callbacks: Any = ()) -> float:
        return self._fit(model, epochs, self.study.dense_rate, self.seed, callbacks)

    def _fit_pruning(self, model: Any, callbacks: Any) -> float:
        # Other permutations than those of the dense training.
        order_seed = 1000 + self.seed
        return self._fit(
            model, self.study.prune_epochs, self.study.prune_rate, order_seed, callbacks
        )

    def _fit(self, model: Any, epochs: int, rate: float, order_seed: int, callbacks: Any) -> float:
        return training.fit(
            model,
            self.toolkit,
            self.train,
            batch=self.study.batch,
            epochs=epochs,
            rate=rate,
            order_seed=order_seed,
            callbacks=callbacks,
        )


def _schedule(study: Study, recipe: Recipe, sparsity: float) -> Schedule:
    if recipe.from_scratch:
        return ConstantSparsity(sparsity, end_step=Fraction(0.75), frequency=study.frequency)
    end_step = study.end_step(recipe.ramp_end)
    return PolynomialDecay(0.0, sparsity, end_step=end_step, frequency=study.frequency)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", choices=methods_settings.FULL, required=True)
    parser.add_argument("--toolkit", choices=toolkits.NAMES, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    study = (methods_settings.QUICK if options.quick else methods_settings.FULL)[options.study]

    # Also counts what comes before the first cell: imports and data.
    started = time.perf_counter()
    trainer = Trainer(toolkits.load(options.toolkit), study, options.seed)
    rows = common.read_rows(study.rows_path, study.budget())
    for stage, method, sparsity in missing_cells(rows, study, options.toolkit, options.seed):
        cell = trainer.cell(stage, method, sparsity)
        ended = time.perf_counter()
        row = {
            "toolkit": options.toolkit,
            "seed": options.seed,
            "stage": stage,
            "method": method,
            "arguments": str(METHODS[method]) if stage == TRAINING and method != TFMOT else "",
            "sparsity": sparsity,
            **cell,
            "seconds": round(ended - started, 2),
            "settings": study.budget(),
            "environment": common.environment(),
        }
        common.append_row(study.rows_path, row)
        print(
            f"{study.key} seed {options.seed} {stage:8} {method:18} {sparsity:.0%}: "
            f"accuracy {cell['accuracy']:.4f}, zeros {cell['zeros'] / cell['prunable']:.2%}, "
            f"{cell['method_seconds']:.1f} s",
            flush=True,
        )
        started = ended


if __name__ == "__main__":
    main()

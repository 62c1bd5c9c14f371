"""Accuracy of tfprune and tfmot at equal budget: Fashion-MNIST, three seeds, 50 to 95 % zeros.

For each seed one dense CNN is trained, and both toolkits start from its weights: same batches in
the same order, learning rate, epochs, schedule and layers. "Dense, trained on" is the control: the
same extra epochs without pruning. A run that was cut continues with the cells that are missing.

    python -m benchmarks.accuracy [--quick]
"""

from __future__ import annotations

import argparse

from benchmarks import accuracy_report, accuracy_settings, common, toolkits
from benchmarks.accuracy_settings import Settings
from benchmarks.accuracy_worker import missing_cells


def run(settings: Settings, quick: bool) -> None:
    """Train all missing cells, each toolkit in its own process.

    Args:
        settings: what to train.
        quick: whether the workers use the quick settings.
    """
    for seed in settings.seeds:
        for toolkit in toolkits.NAMES:  # tfprune first: it trains the dense start of both.
            rows = common.read_rows(settings.rows_path, settings.budget())
            if not missing_cells(rows, settings, toolkit, seed):
                continue
            if rows_without_weights(rows, settings, seed):
                raise SystemExit(
                    f"{settings.dense_weights(seed)} is gone, and the cells of seed {seed} that "
                    f"are missing must start from it: delete the lines of that seed in "
                    f"{settings.rows_path} to train it again."
                )
            extra = ["--quick"] if quick else []
            common.run_worker(
                "benchmarks.accuracy_worker", "--toolkit", toolkit, "--seed", str(seed), *extra
            )


def rows_without_weights(rows: list[dict], settings: Settings, seed: int) -> bool:
    """Return whether a seed has finished cells, but its dense weights are gone."""
    return any(row["seed"] == seed for row in rows) and not settings.dense_weights(seed).exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny budget; tries the machinery")
    quick = parser.parse_args().quick
    settings = accuracy_settings.QUICK if quick else accuracy_settings.FULL
    run(settings, quick)
    rows = common.read_rows(settings.rows_path, settings.budget())
    print(accuracy_report.write(rows, settings, common.command()))


if __name__ == "__main__":
    main()

"""Methods side by side at equal training budget: Fashion-MNIST, three seeds, up to 98 % zeros.

A CNN is pruned by each method of `methods_settings.METHODS` and by tfmot, all from the same dense
weights: same batches in the same order, learning rate, epochs. RigL, which is sparse from the
start, is trained from scratch for the epochs of the dense start and of the pruning together. The
CNN is also pruned in one shot, without training. An LSTM and a small Transformer show that every
kind of layer reaches its sparsity. A run that was cut continues with the cells that are missing.

    python -m benchmarks.methods [--only cnn oneshot lstm transformer] [--quick]
"""

from __future__ import annotations

import argparse

from benchmarks import common, methods_report, toolkits
from benchmarks.methods_settings import FULL, QUICK, Study
from benchmarks.methods_worker import missing_cells


def run(study: Study, quick: bool) -> None:
    """Make all missing cells of a study, each toolkit in its own process.

    Args:
        study: what to train.
        quick: whether the workers use the quick settings.
    """
    for seed in study.seeds:
        for toolkit in toolkits.NAMES:  # tfprune first: it trains the dense start of both.
            rows = common.read_rows(study.rows_path, study.budget())
            if not missing_cells(rows, study, toolkit, seed):
                continue
            begun = any(row["seed"] == seed for row in rows)
            if begun and not study.dense_weights(seed).exists():
                raise SystemExit(
                    f"{study.dense_weights(seed)} is gone, and the cells of seed {seed} that are "
                    f"missing must start from it: delete the lines of that seed in "
                    f"{study.rows_path} to train it again."
                )
            worker = ["--study", study.key, "--toolkit", toolkit, "--seed", str(seed)]
            extra = ["--quick"] if quick else []
            common.run_worker("benchmarks.methods_worker", *worker, *extra)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=FULL, default=list(FULL))
    parser.add_argument("--quick", action="store_true", help="tiny budget; tries the machinery")
    options = parser.parse_args()
    studies = QUICK if options.quick else FULL
    for key in options.only:
        run(studies[key], options.quick)
    rows = {
        key: common.read_rows(study.rows_path, study.budget()) for key, study in studies.items()
    }
    command = f"python -m benchmarks.methods{' --quick' if options.quick else ''}"
    print(methods_report.write(rows, studies, command))


if __name__ == "__main__":
    main()

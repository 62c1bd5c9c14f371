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

from benchmarks import common, methods_report, methods_settings, toolkits
from benchmarks.methods_settings import PARTS, Study
from benchmarks.methods_worker import missing_cells


def run(study: Study, stages: tuple[str, ...], quick: bool) -> None:
    """Make all missing cells of a model, each toolkit in its own process.

    Args:
        study: what to train.
        stages: which stages of it.
        quick: whether the workers use the quick settings.
    """
    for seed in study.seeds:
        for toolkit in toolkits.NAMES:  # tfprune first: it trains the dense start of both.
            rows = common.read_rows(study.rows_path, study.budget())
            if not missing_cells(rows, study, toolkit, seed, stages):
                continue
            begun = any(row["seed"] == seed for row in rows)
            if begun and not study.dense_weights(seed).exists():
                raise SystemExit(
                    f"{study.dense_weights(seed)} is gone, and the cells of seed {seed} that are "
                    f"missing must start from it: delete the lines of that seed in "
                    f"{study.rows_path} to train it again."
                )
            worker = ["--model", study.model, "--toolkit", toolkit, "--seed", str(seed)]
            extra = ["--quick"] if quick else []
            common.run_worker("benchmarks.methods_worker", *worker, "--stages", *stages, *extra)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny budget; tries the machinery")
    options = parser.parse_args()
    studies = methods_settings.QUICK if options.quick else methods_settings.FULL
    for model, study in studies.items():
        stages = tuple(PARTS[part][1] for part in options.only if PARTS[part][0] == model)
        if stages:
            run(study, stages, options.quick)
    rows = {
        model: common.read_rows(study.rows_path, study.budget()) for model, study in studies.items()
    }
    command = f"python -m benchmarks.methods{' --quick' if options.quick else ''}"
    print(methods_report.write(rows, studies, command))


if __name__ == "__main__":
    main()

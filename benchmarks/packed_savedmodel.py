"""Packed SavedModels beside dense ones, and beside what gzip, xz and zstd make of those.

Bytes are those of the variables, without the graph. The plain bound is what an ideal mask and 32
bits per kept value take: the entropy of the mask, and everything that is not pruned as it is.

    python -m benchmarks.packed_savedmodel [--keep-peers]

Most of the time goes to xz and zstd, which see the dense files alone: `--keep-peers` takes their
bytes from the last report where it has a dense file of the same size.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
LOADS = 5
CALLS = 15
BOUND_GOAL = 0.90
LOAD_GOAL = 1.5
PEERS = {"gzip": ["gzip", "-9"], "xz": ["xz", "-9", "-T2"], "zstd": ["zstd", "-19", "-T2", "-q"]}


@dataclass(frozen=True)
class Row:
    """One model at one sparsity: bytes of the variables, and ratios packed / dense."""

    model: str
    sparsity: float
    dense: int
    bound: int
    packed: int
    gzip: int | None
    xz: int | None
    zstd: int | None
    graph_growth: int
    load_seconds: float
    load_ratio: float
    call_ratio: float
    same_bits: bool


def resnet50(keras: Any) -> Any:
    """25.6 M parameters."""
    return keras.applications.ResNet50(weights=None)


def mobilenet_v2(keras: Any) -> Any:
    """3.5 M parameters."""
    return keras.applications.MobileNetV2(weights=None)


def transformer(keras: Any) -> Any:
    """Six blocks of 512 units over 64 steps: 18.9 M parameters."""
    layers = keras.layers
    inputs = x = keras.Input((64, 512))
    for _ in range(6):
        normal = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(8, 64)(normal, normal)])
        wide = layers.Dense(2048, activation="relu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(512)(wide)])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


MODELS = {"ResNet50": resnet50, "MobileNetV2": mobilenet_v2, "Transformer": transformer}


def randomize(model: Any) -> None:
    """Give every weight random values: normal ones with Glorot's deviation, as trained ones are."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        values = random.standard_normal(weight.shape).astype("float32")
        if len(weight.shape) > 1:
            fans = np.prod(weight.shape[:-2]) * sum(weight.shape[-2:])
            values *= np.float32(np.sqrt(2 / fans))
        else:  # Also variances, which must be positive.
            values = 1 + 0.1 * np.abs(values)
        weight.assign(values)


def plain_bound(model: Any) -> int:
    """Return the bytes of masks at their entropy and of all values that are not zero."""
    bits = 0.0
    for weight in model.weights:
        kept = np.count_nonzero(weight.numpy()) / np.prod(weight.shape)
        parts = [p for p in (kept, 1 - kept) if 0 < p < 1]
        bits += np.prod(weight.shape) * (32 * kept - sum(p * np.log2(p) for p in parts))
    return round(bits / 8)


def measure(
    name: str, model: Any, sparsity: float, folder: Path, peers: dict[Any, dict[str, int | None]]
) -> Row:
    """Prune, export dense and packed, and compare; `peers` has bytes by model, sparsity, size."""
    import tensorflow as tf

    import tfprune
    from tfprune.export.packed_savedmodel import pack_saved_model
    from tfprune.export.savedmodel import write_saved_model
    from tfprune.export.signature import signature_of

    model = tfprune.prune_once(model, sparsity)
    dense, packed = folder / "dense", folder / "packed"
    write_saved_model(model, signature_of(model, None), dense)
    pack_saved_model(dense, packed)
    x = np.random.default_rng(0).normal(size=(1, *model.input_shape[1:])).astype("float32")
    paths = (dense, packed)
    calls, outputs = [], []
    for path in paths:
        loaded = tf.saved_model.load(str(path))
        calls.append(lambda loaded=loaded: loaded.serve(tf.constant(x)).numpy())
        outputs.append(calls[-1]())
    seconds = timed([lambda path=path: tf.saved_model.load(str(path)) for path in paths], LOADS)
    calls = timed(calls, CALLS)
    variables = [path / "variables" / "variables.data-00000-of-00001" for path in paths]
    graphs = [(path / "saved_model.pb").stat().st_size for path in paths]
    dense_bytes = variables[0].stat().st_size
    compared = peers.get((name, sparsity, dense_bytes)) or {
        peer: compressed(command, variables[0]) for peer, command in PEERS.items()
    }
    return Row(
        model=name,
        sparsity=sparsity,
        dense=dense_bytes,
        bound=plain_bound(model),
        packed=variables[1].stat().st_size,
        **compared,
        graph_growth=graphs[1] - graphs[0],
        load_seconds=seconds[1],
        load_ratio=seconds[1] / seconds[0],
        call_ratio=calls[1] / calls[0],
        same_bits=bool(np.array_equal(*outputs)),
    )


def timed(calls: list[Any], repeats: int) -> list[float]:
    """Return the median seconds of each call, taken in turns."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, own in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            own.append(time.perf_counter() - started)
    return [statistics.median(own) for own in seconds]


def compressed(command: list[str], path: Path) -> int | None:
    """Return the bytes that a compressor makes of a file; None if it is not installed."""
    if shutil.which(command[0]) is None:
        return None
    with path.open("rb") as stream:
        process = subprocess.run([*command, "-c"], stdin=stream, capture_output=True, check=True)
    return len(process.stdout)


def kept_peers(path: Path) -> dict[Any, dict[str, int | None]]:
    """Return the bytes of the compressors in a report, by model, sparsity and dense bytes."""
    with path.open(newline="") as file:
        return {
            (row["model"], float(row["sparsity"]), int(row["dense"])): {
                peer: int(row[peer]) if row[peer] else None for peer in PEERS
            }
            for row in csv.DictReader(file)
        }


def main() -> None:
    """Run all cells that are missing, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep-peers", action="store_true", help="compress nothing again")
    options = parser.parse_args()
    import keras

    stem = common.RESULTS / "packed_savedmodel"
    peers = kept_peers(stem.with_suffix(".csv")) if options.keep_peers else {}
    settings = {"loads": LOADS, "calls": CALLS, "seed": 0}
    log = stem.with_suffix(".jsonl")
    done = common.read_rows(log, settings)
    for name, build in MODELS.items():
        missing = [
            s for s in SPARSITIES if (name, s) not in {(r["model"], r["sparsity"]) for r in done}
        ]
        if not missing:
            continue
        model = build(keras)
        randomize(model)
        for sparsity in missing:
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                row = asdict(measure(name, model, sparsity, Path(folder), peers))
            row |= {"seconds": time.perf_counter() - started, "settings": settings}
            common.append_row(log, row)
            done.append(row)
            print(row, flush=True)
    names = [field.name for field in fields(Row)]
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(done)
    rows = [Row(**{name: row[name] for name in names}) for row in done]
    plot(rows, stem.with_suffix(".png"))
    text = markdown(rows, sum(row["seconds"] for row in done))
    stem.with_suffix(".md").write_text(text)
    print(text)


def markdown(rows: list[Row], seconds: float) -> str:
    """Return the report."""
    header = ["model", "sparsity", "dense", "gzip -9", "xz -9", "zstd -19", "packed",
              "/ bound", "graph", "load", "/ dense", "call / dense", "same bits"]  # fmt: skip
    table = [
        [
            row.model,
            f"{row.sparsity:.0%}",
            *(
                "not installed" if size is None else f"{size / 1e6:.2f} MB"
                for size in (row.dense, row.gzip, row.xz, row.zstd, row.packed)
            ),
            f"{row.packed / row.bound:.3f}",
            f"+{row.graph_growth / 1e3:.0f} kB",
            f"{row.load_seconds:.2f} s",
            f"{row.load_ratio:.2f}",
            f"{row.call_ratio:.2f}",
            "yes" if row.same_bits else "NO",
        ]
        for row in rows
    ]
    bound = max(row.packed / row.bound for row in rows)
    slow = [f"{row.model} {row.sparsity:.0%} ({row.load_ratio:.2f})"
            for row in rows if row.load_ratio > LOAD_GOAL]  # fmt: skip
    goals = [
        f"at most {BOUND_GOAL} of the bound: {met(bound <= BOUND_GOAL)}, {bound:.3f} at worst",
        f"load time at most {LOAD_GOAL} of the dense one: "
        + (f"missed by {', '.join(slow)}" if slow else "met"),
        f"outputs the same, bit for bit: {met(all(row.same_bits for row in rows))}",
    ]
    return f"""# Packed SavedModels

{common.markdown_table(header, table)}

- Goals: {f"{chr(10)}- ".join(goals)}.

Bytes are those of the variables; "graph" is what unpacking adds to `saved_model.pb`. The bound is
the entropy of the masks and 32 bits per value that is not zero. Loading is
`tf.saved_model.load`, a call is of one example.

- Command: `{common.command()}`
- Budget: random weights, seed 0; medians of {LOADS} loads and {CALLS} calls, dense and packed in
  turns; {seconds / 60:.0f} minutes.
- Where: {" - ".join(common.environment().values())}
"""


def met(reached: bool) -> str:
    """Say whether a goal is reached."""
    return "met" if reached else "missed"


def plot(rows: list[Row], path: Path) -> None:
    """Draw the bytes of each way to compress ResNet50."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row.model == "ResNet50"]
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for name in ("dense", "gzip", "xz", "zstd", "bound", "packed"):
        style = {"packed": "o-", "bound": "--"}.get(name, ".-")
        sizes = [getattr(row, name) for row in rows]
        if None not in sizes:
            axes.plot([row.sparsity for row in rows], [s / 1e6 for s in sizes], style, label=name)
    axes.set(
        yscale="log", xlabel="sparsity", ylabel="MB", title="Variables of a ResNet50 SavedModel"
    )
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()

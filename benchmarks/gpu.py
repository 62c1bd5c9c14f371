"""2:4 matrix products on an NVIDIA GPU: the kernels of an exported ONNX file, sparse beside dense.

Every kernel that an export wrote with the pattern 2:4 becomes the matrix `(outputs, taps * inputs)`
that a runtime multiplies, is stored in PyTorch's semi-structured form and timed against the same
dense product in the same process, in half precision. That is what a runtime can gain at best: it
measures matrix products, not a model, and not TensorRT.

Needs an NVIDIA GPU with sparse tensor cores (compute capability 8.0 and later) and
`pip install torch`. Without them it says so, writes nothing, and ends with exit code 0.

    python -m benchmarks.gpu model.onnx [--columns 4096]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from tfprune.export.nm_patterns import has_pattern, onnx_kernels

ROWS_OF, COLUMNS_OF = 32, 64
"""PyTorch's semi-structured float16 matrices have multiples of these as their two sizes."""
RUNS, ROUNDS = 50, 7


@dataclass(frozen=True)
class Product:
    """A product of a kernel with `columns` columns of data.

    Args:
        name: the kernel in the file.
        matrix: its values, `(outputs, taps * inputs)`.
    """

    name: str
    matrix: np.ndarray


def products(path: Path) -> tuple[list[Product], dict[str, str]]:
    """Read the kernels of an ONNX file that sparse tensor cores can take.

    Args:
        path: the file.

    Returns:
        What is to be measured, and by name of a kernel why it is not.
    """
    import onnx

    taken, skipped = [], {}
    for name, kernel in onnx_kernels(onnx.load(path).graph):
        # Inputs last, so that groups of four are neighbours in a row of the matrix.
        matrix = kernel.transpose(2, 0, 1).reshape(kernel.shape[2], -1)
        rows, columns = matrix.shape
        if kernel.shape[1] % 4:
            skipped[name] = f"{kernel.shape[1]} inputs are no multiple of 4"
        elif not has_pattern(kernel, 2, 4):
            skipped[name] = "its values have no 2:4"
        elif rows % ROWS_OF or columns % COLUMNS_OF:
            skipped[name] = (
                f"{rows}x{columns} is no multiple of {ROWS_OF}x{COLUMNS_OF}, the tiles of the cores"
            )
        else:
            taken.append(Product(name, np.ascontiguousarray(matrix, np.float16)))
    return taken, skipped


def obstacle() -> str:
    """Return why there is nothing to measure on here; empty if a GPU is at hand."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed (`pip install torch`)"
    import torch

    if not torch.cuda.is_available():
        return "PyTorch sees no NVIDIA GPU"
    capability = torch.cuda.get_device_capability()
    if capability < (8, 0):
        return f"{torch.cuda.get_device_name()} has no sparse tensor cores"
    return ""


def measure(product: Product, columns: int) -> dict[str, Any]:
    """Time one product, dense and sparse in turns, on the GPU.

    Args:
        product: the kernel.
        columns: columns of data: batch times positions.

    Returns:
        Medians in milliseconds, their ratio, and the largest difference of the results.
    """
    import torch

    dense = torch.from_numpy(product.matrix).cuda()
    sparse = torch.sparse.to_sparse_semi_structured(dense)
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (dense.shape[1], columns)
    data = torch.randn(shape, dtype=torch.float16, device="cuda", generator=generator)
    expected = dense @ data
    difference = (sparse @ data - expected).abs().max() / expected.abs().max()
    times: dict[str, list[float]] = {"dense": [], "sparse": []}
    for _ in range(ROUNDS):
        for name, matrix in (("dense", dense), ("sparse", sparse)):
            times[name].append(_milliseconds(lambda matrix=matrix: matrix @ data))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "name": product.name,
        "rows": dense.shape[0],
        "inner": dense.shape[1],
        **medians,
        "gain": medians["dense"] / medians["sparse"],
        "difference": float(difference),
    }


def report(
    rows: list[dict[str, Any]], skipped: dict[str, str], device: str, columns: int, file: str
) -> str:
    """Write the measurements as Markdown.

    Args:
        rows: what `measure` returned.
        skipped: kernels that were not measured, with the reason.
        device: name of the GPU and versions.
        columns: columns of data.
        file: name of the ONNX file.
    """
    cells = [
        [
            row["name"],
            f"{row['rows']}x{row['inner']}",
            f"{row['dense']:.4f}",
            f"{row['sparse']:.4f}",
            f"{row['gain']:.2f}x",
            f"{row['difference']:.1e}",
        ]
        for row in rows
    ]
    header = ["kernel", "matrix", "dense ms", "2:4 ms", "gain", "difference"]
    total = sum(row["dense"] for row in rows) / sum(row["sparse"] for row in rows)
    parts = [
        "# 2:4 matrix products on a GPU",
        f"Kernels of `{file}` times {columns:,} columns of float16, on {device}. Medians of "
        f"{ROUNDS} interleaved rounds of {RUNS} products. Matrix products alone: no model, no "
        f"TensorRT. All together: {total:.2f}x.",
        common.markdown_table(header, cells),
        *(["Not measured:"] if skipped else []),
        "\n".join(f"- {name}: {reason}" for name, reason in skipped.items()),
        f"`{common.command()}`",
        common.environment()["versions"],
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def main() -> None:
    """Measure what a file holds, and write `results/gpu.md`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="a model.onnx that tfprune exported")
    parser.add_argument(
        "--columns", type=int, default=4096, help="columns of data, a multiple of 8"
    )
    arguments = parser.parse_args()
    if arguments.columns < 8 or arguments.columns % 8:
        raise SystemExit(f"--columns must be a multiple of 8. Received: {arguments.columns}.")
    if reason := obstacle():
        print(f"Nothing was measured and nothing written: {reason}.")
        return
    taken, skipped = products(arguments.file)
    if not taken:
        raise SystemExit(f"{arguments.file} has no kernel that fits: {skipped}")
    import torch

    rows = [measure(product, arguments.columns) for product in taken]
    device = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, torch {torch.__version__}"
    text = report(rows, skipped, device, arguments.columns, arguments.file.name)
    (common.RESULTS / "gpu.md").write_text(text)
    print(text)


def _milliseconds(call: Callable[[], Any]) -> float:
    """Return the milliseconds of one call, by the clock of the GPU."""
    import torch

    call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(RUNS):
        call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / RUNS


if __name__ == "__main__":
    main()

"""Which N:M patterns the kernels in an artifact have, whatever its format.

A converter transposes, reshapes and folds. So the check reads what was written, and sees each
kernel as `(taps, inputs, outputs)`, the order of `tfprune.kernel_layout`:

| artifact | kernels | stored as |
|---|---|---|
| SavedModel, packed or not | variables of the shapes of the model's kernels | Keras's order |
| TFLite | CONV_2D, TRANSPOSE_CONV | outputs, height, width, inputs |
| | CONV_3D | depth, height, width, inputs, outputs |
| | FULLY_CONNECTED, LSTM and RNN | outputs, inputs |
| | BATCH_MATMUL | inputs, outputs; the other way round with `adjY` |
| ONNX | Conv | outputs, inputs, spatial axes |
| | ConvTranspose | inputs, outputs, spatial axes |
| | MatMul, Gemm | inputs, outputs; the other way round with `transB` |
| | LSTM, GRU, RNN | directions, outputs, inputs |

Groups run along the inputs: C of a convolution, K of a matrix product, which is where NVIDIA's
sparse tensor cores and TensorRT want 2:4, and where `NM(2, 4)` puts it. Depthwise kernels have
one input per output, so no groups. A remainder that fills no group is dense and does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.errors import VerificationError
from tfprune.export.sparse_runtime.graph import read_graph

if TYPE_CHECKING:
    from onnx import GraphProto

    from tfprune.kernel_layout import KernelLayout
    from tfprune.prunable import Candidate

PATTERNS = ((2, 4), (1, 4))
"""N kept of every M: that of sparse tensor cores, and the next sparser one."""

# Positions of the weights among the inputs of an operator.
_TFLITE_WEIGHTS = {
    "CONV_2D": (1,),
    "TRANSPOSE_CONV": (1,),
    "CONV_3D": (1,),
    "FULLY_CONNECTED": (1,),
    "BATCH_MATMUL": (1,),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": tuple(range(1, 9)),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2),
}
_ONNX_WEIGHTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "MatMul": (0, 1),
    "Gemm": (1,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
}


@dataclass(frozen=True)
class PatternShare:
    """How much of an artifact has a pattern.

    Args:
        pattern: "2:4" for 2 kept of every 4 along the inputs.
        kernels: kernels all of whose groups have it.
        of_kernels: kernels of convolutions and matrix products in the artifact.
        weights: fraction of all their weights that is in the former.

    Example:
        >>> str(PatternShare("2:4", 53, 54, 0.99))
        '2:4 in 53 of 54 kernels (99.0 % of their weights)'
    """

    pattern: str
    kernels: int
    of_kernels: int
    weights: float

    def __str__(self) -> str:
        """Say it in words."""
        return (
            f"{self.pattern} in {self.kernels} of {self.of_kernels} kernels "
            f"({100 * self.weights:.1f} % of their weights)"
        )


def has_pattern(taps: np.ndarray, n: int, m: int) -> bool:
    """Whether every full group of `m` inputs holds at most `n` weights that are not zero.

    Args:
        taps: a kernel `(taps, inputs, outputs)`.
        n: weights kept.
        m: size of a group.

    Returns:
        The answer; False where the inputs do not fill one group.

    Example:
        >>> has_pattern(np.array([[[1.0], [0], [0], [3], [5]]]), 2, 4)
        True
    """
    full = taps.shape[1] - taps.shape[1] % m
    if not full:
        return False
    groups = taps[:, :full].reshape(taps.shape[0], full // m, m, taps.shape[2])
    return bool((np.count_nonzero(groups, axis=2) <= n).all())


@dataclass(frozen=True)
class Kernel:
    """What is kept of a kernel once it was looked at; its values may take gigabytes.

    Args:
        size: number of its weights.
        patterns: those of `PATTERNS` that it has.
    """

    size: int
    patterns: frozenset[tuple[int, int]]


def judged(kernels: Iterable[np.ndarray]) -> list[Kernel]:
    """Look at kernels `(taps, inputs, outputs)` one by one.

    Example:
        >>> judged([np.ones((1, 4, 1)), np.zeros((9, 4, 2))])[0]
        Kernel(size=4, patterns=frozenset())
    """
    return [
        Kernel(kernel.size, frozenset(p for p in PATTERNS if has_pattern(kernel, *p)))
        for kernel in kernels
    ]


def pattern_shares(kernels: Sequence[Kernel]) -> tuple[PatternShare, ...]:
    """Count the kernels with each of `PATTERNS`; patterns that none has are left out."""
    shares = []
    for n, m in PATTERNS:
        found = [kernel.size for kernel in kernels if (n, m) in kernel.patterns]
        if found:
            weights = sum(found) / sum(kernel.size for kernel in kernels)
            shares.append(PatternShare(f"{n}:{m}", len(found), len(kernels), weights))
    return tuple(shares)


def check_patterns(path: Path, stored: Sequence[Kernel], model: Sequence[Kernel]) -> None:
    """Raise if kernels of a model have 2:4 and what an artifact stores of them does not.

    Kernels are matched by size: converters rename them and fold other layers into them. One that
    is stored in parts, or in no matrix product, has no match and is not judged; nor is a file for
    XNNPACK's sparse mode, whose kernels were taken apart, and which has no use for the pattern. In
    a model of which less than half has it, some kernels have it by chance.

    Args:
        path: the artifact.
        stored: its kernels.
        model: those of the model.

    Raises:
        VerificationError: the pattern was lost.
    """
    of_model = sum(kernel.size for kernel in model if (2, 4) in kernel.patterns)
    if 2 * of_model < sum(kernel.size for kernel in model) or _is_sparse_encoded(path):
        return
    present = Counter(kernel.size for kernel in stored)
    wanted, kept = (
        Counter(kernel.size for kernel in kernels if (2, 4) in kernel.patterns)
        for kernels in (model, stored)
    )
    lost = sum(max(min(wanted[size], present[size]) - kept[size], 0) for size in wanted)
    if lost:
        raise VerificationError(
            f"{path.name} has lost the pattern 2:4 along the inputs in {lost} of "
            f"{wanted.total()} kernels of the model that have it, so no sparse tensor core takes "
            "them. Nothing was exported. This is a fault of the conversion: export this model "
            "without the format, and report it."
        )


def _is_sparse_encoded(path: Path) -> bool:
    if path.suffix != ".tflite":
        return False
    return read_graph(path).is_sparse_encoded


def model_kernels(model: Any) -> list[Candidate]:
    """Return the kernels of convolutions and matrix products of a Keras model."""
    import keras

    from tfprune.prunable import SkipReason, find_candidates

    embeddings = (keras.layers.Embedding, keras.layers.ReversibleEmbedding)
    return [
        candidate
        for candidate in find_candidates(model)
        if candidate.reason in (None, SkipReason.FROZEN)
        and not isinstance(candidate.layer, embeddings)
    ]


def stored_kernels(path: Path, layouts: Iterable[KernelLayout] = ()) -> Iterator[np.ndarray]:
    """Yield the kernels of an artifact, `(taps, inputs, outputs)`.

    Args:
        path: a `.tflite` or `.onnx` file, or the folder of a SavedModel. Of what else a format of
            a user's own may write, nothing is known.
        layouts: layouts of the model's kernels; a SavedModel alone does not tell what its
            variables are for.
    """
    if path.suffix == ".tflite":
        yield from _tflite_kernels(path)
    elif path.suffix == ".onnx":
        import onnx

        yield from (kernel for _, kernel in onnx_kernels(onnx.load(path).graph))
    elif (path / "saved_model.pb").is_file():
        from tfprune.export.savedmodel import stored_weights

        by_shape = {layout.shape: layout for layout in layouts}
        for weight in stored_weights(path):
            if weight.shape in by_shape:
                yield by_shape[weight.shape].to_taps(weight)


def _tflite_kernels(path: Path) -> Iterator[np.ndarray]:
    graph, seen = read_graph(path), set()
    for op in graph.operators:
        for position in _TFLITE_WEIGHTS.get(op.name, ()):
            index = op.inputs[position] if position < len(op.inputs) else -1
            stored = graph.constant(index) if index >= 0 else None
            # The sparse encoding holds values alone; the pattern is that of the dense formats.
            if stored is None or stored.sparse or index in seen:
                continue
            seen.add(index)
            array = stored.stored.reshape(graph.tensors[index].shape)
            if op.name == "CONV_3D" or (op.name == "BATCH_MATMUL" and not op.options["adjY"]):
                yield _inputs_first(array)
            else:
                yield _outputs_first(np.moveaxis(array, -1, 1))


def onnx_kernels(graph: GraphProto) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and values of the kernels of an ONNX graph, `(taps, inputs, outputs)`."""
    import onnx

    from tfprune.export.onnx import graphs

    parts = [*graphs(graph)]
    # The body of a loop uses those of the graph around it.
    initializers = {tensor.name: tensor for part in parts for tensor in part.initializer}
    for node in (node for part in parts for node in part.node):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for position in _ONNX_WEIGHTS.get(node.op_type, ()):
            name = node.input[position] if position < len(node.input) else ""
            if (initializer := initializers.pop(name, None)) is None:
                continue
            array = onnx.numpy_helper.to_array(initializer)
            # One input per group: a depthwise kernel, which has nothing to leave out.
            if array.ndim < 2 or (node.op_type == "Conv" and array.shape[1] == 1):
                continue
            if node.op_type == "Conv" or attributes.get("transB"):
                yield name, _outputs_first(array)
            elif node.op_type == "ConvTranspose":
                yield name, _outputs_first(array.swapaxes(0, 1))
            elif node.op_type in ("LSTM", "GRU", "RNN"):
                yield name, _inputs_first(array.swapaxes(1, 2))
            elif node.op_type == "MatMul" and position == 0:  # The weight times the data.
                yield name, _inputs_first(array.swapaxes(-1, -2))
            else:
                yield name, _inputs_first(array)


def _inputs_first(array: np.ndarray) -> np.ndarray:
    """Turn `(..., inputs, outputs)` into `(taps, inputs, outputs)`."""
    return array.reshape(-1, *array.shape[-2:])


def _outputs_first(array: np.ndarray) -> np.ndarray:
    """Turn `(outputs, inputs, ...)` into `(taps, inputs, outputs)`."""
    return array.reshape(*array.shape[:2], -1).transpose(2, 1, 0)

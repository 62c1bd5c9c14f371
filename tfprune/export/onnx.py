"""The `onnx` format, for ONNX Runtime and for TensorRT on GPU servers.

Weights are float32 initializers that carry the names of their layers, with the zeros of the model:
folding a BatchNormalization scales whole outputs. Signature names are those of the SavedModel, the
batch size is open likewise, and the opset is `OPSET`, which TensorRT 8.6 and later read.

A model that was pruned with the pattern "2:4" is what NVIDIA's sparse tensor cores take. TensorRT
wants two zeros in four along the input channels of a convolution (C of its KCRS order) and along
the summed axis of a matrix product (K): the default direction of `NM(2, 4)`. The export checks that
the written file has them (`tfprune.export.nm_patterns`). Then

    trtexec --onnx=build/model.onnx --fp16 --sparsity=enable --minShapes=INPUT:1x224x224x3 \
        --optShapes=INPUT:8x224x224x3 --maxShapes=INPUT:32x224x224x3 --saveEngine=model.engine

lets TensorRT choose sparse kernels where they are faster; INPUT is the name of the input. What
ONNX Runtime computes on the CPU is verified at every export. TensorRT itself, and the speed on a
GPU, have not been measured: `python -m benchmarks.gpu` measures the matrix products.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from tfprune.errors import UnsupportedModelError, missing_dependency
from tfprune.export.formats import Source, Tolerance, register_format
from tfprune.export.nm_patterns import model_kernels, onnx_kernels
from tfprune.export.runners import Runner
from tfprune.profiling.latency import time_calls

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

OPSET = 17
"""From 18 on, tf2onnx writes global pooling as a reduction, which is not fused by runtimes."""

WEIGHT_ROLES = {
    "Conv": {1: "kernel", 2: "bias"},
    "ConvTranspose": {1: "kernel", 2: "bias"},
    "MatMul": {0: "kernel", 1: "kernel"},
    "Gemm": {1: "kernel", 2: "bias"},
    "Gather": {0: "embeddings"},
    "LSTM": {1: "kernel", 2: "recurrent_kernel", 3: "bias"},
    "GRU": {1: "kernel", 2: "recurrent_kernel", 3: "bias"},
    "RNN": {1: "kernel", 2: "recurrent_kernel", 3: "bias"},
}
"""Which inputs of an operator are weights, and what Keras calls them."""


class OnnxRunner(Runner):
    """An ONNX file in ONNX Runtime, on the CPU.

    Args:
        path: the file.
        threads: threads of one operator.
    """

    def __init__(self, path: Path, threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # Errors; what it warns of is its own rewriting.
        self.threads = threads
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Runner.run`."""
        return dict(zip(self._names, self._session.run(None, dict(inputs)), strict=True))

    def time(self, inputs: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """See `Runner.time`."""
        arrays = dict(inputs)
        return time_calls(lambda: self._session.run(None, arrays), runs)


def check_installed() -> None:
    """Refuse the format, before anything is written, if what it needs is not installed.

    Raises:
        MissingDependencyError: a package is missing.
    """
    import importlib.util

    for package in ("onnx", "onnxruntime", "tf2onnx"):
        if importlib.util.find_spec(package) is None:
            raise missing_dependency(package, "onnx", "The format 'onnx'")


def stored_weights(path: Path) -> Iterator[np.ndarray]:
    """Yield the float initializers of an ONNX file with at least two axes."""
    import onnx

    for graph in graphs(onnx.load(path).graph):
        for initializer in graph.initializer:
            if len(initializer.dims) >= 2:
                array = onnx.numpy_helper.to_array(initializer)
                if array.dtype.kind == "f":
                    yield array


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and the bodies of its loops and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


@register_format(
    "onnx",
    filename="model.onnx",
    tolerance=Tolerance(1e-4),
    runner=OnnxRunner,
    stored_weights=stored_weights,
    check_installed=check_installed,
)
def _write(source: Source, path: Path) -> str:
    import onnx

    try:
        model = _convert(_inlinable(source.serving_model, source.work / "onnx_model"))
        _check_operators(model)
        _name_weights(model.graph, source.model)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString(deterministic=True))
    except (UnsupportedModelError, OSError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0][:300]
        if "2GB" in reason:
            reason = "its weights are larger than the 2 GB that one ONNX file holds"
        raise UnsupportedModelError(_refusal(source.model.name, reason)) from error
    return f"Opset {OPSET}."


def _refusal(name: str, reason: str) -> str:
    return (
        f"The model {name!r} cannot be converted to model.onnx: {reason}. "
        "Export it with the formats that can hold it, such as savedmodel."
    )


def _inlinable(saved_model: Path, copy: Path) -> Path:
    """Return a copy of a SavedModel without functions that only XLA may compile.

    Keras puts grouped convolutions into such functions, and a converter cannot look into them.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
    for meta_graph in content.meta_graphs:
        graph = meta_graph.graph_def
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        for owner in (*nodes, *graph.library.function):
            owner.attr.pop("_XlaMustCompile", None)
    copy.mkdir()
    os.symlink((saved_model / "variables").resolve(), copy / "variables")
    (copy / "saved_model.pb").write_bytes(content.SerializeToString())
    return copy


def _convert(saved_model: Path) -> ModelProto:
    """Convert with tf2onnx. Its front door, like Keras's own export, loses names of outputs."""
    import tensorflow as tf
    import tf2onnx
    from tf2onnx import tf_loader, tfonnx

    # Names of new nodes are counted on over the whole process: two exports would differ.
    tf2onnx.utils.INTERNAL_NAME = 1
    with _quiet():
        graph, inputs, outputs, function, _, tables, renamed = tf_loader.from_saved_model(
            str(saved_model),
            None,
            None,
            tag="serve",
            signatures=["serving_default"],
            return_concrete_func=True,
            return_initialized_tables=True,
            return_tensors_to_rename=True,
        )
        with tf.Graph().as_default() as frozen:
            tf.import_graph_def(graph, name="")
            converted = tfonnx.process_tf_graph(
                frozen,
                opset=OPSET,
                input_names=inputs,
                output_names=outputs,
                tensors_to_rename=renamed,
                initialized_tables=tables,
                custom_op_handlers={"Erfc": (_complement_of_erf, [])},
            )
        model = _optimized(converted).make_model("tfprune")
    _, named_inputs = function.structured_input_signature
    _name_sizes(model.graph.input, named_inputs)
    _name_sizes(model.graph.output, function.structured_outputs)
    return model


def _optimized(graph: Any) -> Any:
    """Let tf2onnx fold and merge, without the copies of all weights that each of its passes makes.

    A pass brings the messages of all nodes up to date, and what they held before stays allocated;
    `make_model` does that once more, when it matters.
    """
    from tf2onnx import optimizer

    with mock.patch.object(type(graph), "update_proto"):
        return optimizer.optimize_graph(graph, catch_errors=False)


def _complement_of_erf(graph: Any, node: Any, name: str, _: Any) -> None:
    """Write Erfc, which is in TensorFlow's GELU and not in ONNX, as 1 - Erf."""
    output = node.output[0]
    shape, dtype = graph.get_shape(output), graph.get_dtype(output)
    node.type = "Erf"
    one = graph.make_const(f"{name}_one", np.array(1, np.float32))
    difference = graph.make_node("Sub", [one.output[0], output], shapes=[shape], dtypes=[dtype])
    others = [other for other in graph.get_nodes() if other.name != difference.name]
    graph.replace_all_inputs(output, difference.output[0], ops=others)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep tf2onnx from logging what becomes one error here."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_operators(model: ModelProto) -> None:
    import onnx

    # tf2onnx leaves what it cannot convert in the graph.
    unknown = sorted(
        {
            node.op_type
            for graph in graphs(model.graph)
            for node in graph.node
            if not onnx.defs.has(node.op_type, node.domain)
        }
    )
    if unknown:
        raise ValueError(f"ONNX has no operators for {', '.join(unknown)} of TensorFlow")


def _name_sizes(values: Any, specs: Mapping[str, Any]) -> None:
    """State the sizes of inputs or outputs; an open first one is the batch."""
    for value in values:
        shape = value.type.tensor_type.shape
        sizes = specs[value.name].shape
        if sizes.rank is None:
            continue
        del shape.dim[:]
        for axis, size in enumerate(sizes):
            if size is not None:
                shape.dim.add(dim_value=size)
            elif axis == 0:
                shape.dim.add(dim_param="batch")
            else:
                shape.dim.add()


def _name_weights(graph: GraphProto, model: Any) -> None:
    """Give initializers the paths of the Keras weights, or at least a layer and a role.

    Kernels are found by their values, each output up to the factor that folding a
    BatchNormalization gives it; what else there is, by the operator that uses it.
    """
    layers = {layer.name for layer in model._flatten_layers(include_self=False)}
    names = {initializer.name for initializer in graph.initializer}
    paths = {
        kernel.path: _directions(kernel.layout.to_taps(np.asarray(kernel.variable)))
        for kernel in model_kernels(model)
    }
    renamed: dict[str, str] = {}
    for name, kernel in onnx_kernels(graph):
        directions = _directions(kernel)
        for path, wanted in paths.items():
            if wanted.shape == directions.shape and np.allclose(wanted, directions, atol=1e-4):
                renamed[name] = path
                del paths[path]
                break
    for node in graph.node:
        for index, role in WEIGHT_ROLES.get(node.op_type, {}).items():
            old = node.input[index] if index < len(node.input) else ""
            if old not in names or old in renamed or not (scope := _scope(node.name, layers)):
                continue
            new, taken = f"{scope}/{role}", names | set(renamed.values())
            counted = (f"{new}_{count}" for count in range(1, len(taken) + 2))
            renamed[old] = new if new not in taken else next(n for n in counted if n not in taken)
    for part in graphs(graph):
        for node in part.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
    for initializer in graph.initializer:
        initializer.name = renamed.get(initializer.name, initializer.name)


def _directions(kernel: np.ndarray) -> np.ndarray:
    """Return each output's weights of a kernel `(taps, inputs, outputs)`, without their scale."""
    columns = kernel.reshape(-1, kernel.shape[-1])
    largest = np.take_along_axis(columns, np.abs(columns).argmax(axis=0)[None], axis=0)
    return columns / np.where(largest == 0, 1, largest)


def _scope(node: str, layers: set[str]) -> str:
    """Return the layer that a node comes from, such as "block/conv1"; "" if it shows none."""
    segments = []
    for segment in node.removeprefix("StatefulPartitionedCall/").split("/"):
        # TensorFlow counts scopes on, and Keras was in each before the export.
        for name in (re.sub(r"_\d+$", "", segment), segment):
            if name in layers:
                segments.append(name)
                break
    return "/".join(segments)

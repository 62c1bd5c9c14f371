"""Dense networks as programs, built without TensorFlow, and what they compute."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tfprune.export.sparse_runtime.compiler.emitter import Emitter, mean
from tfprune.export.sparse_runtime.compiler.program import (
    NO_PADS,
    Program,
    Tensor,
    same_padding,
    windows,
)
from tfprune.export.sparse_runtime.compiler.writing import write_program


class Network:
    """Builds a network; methods add layers and return their outputs."""

    def __init__(self, *shapes, seed=0, sparsity=0.9):
        self.rng = np.random.default_rng(seed)
        self.sparsity = sparsity
        self.emitter = Emitter()
        self.inputs = [Tensor(f"input_{n}", (1, *shape)) for n, shape in enumerate(shapes)]

    def filters(self, shape, fan):
        values = self.rng.normal(size=shape).astype(np.float32)
        values[self.rng.random(shape) < self.sparsity] = 0
        return values / np.float32(np.sqrt(fan * (1 - self.sparsity) + 1))

    def conv(self, x, outputs, kernel, stride=1, padding="same", activation=0, dilation=1):
        rows, columns = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        shape = (outputs, rows, columns, x.shape[3])
        filters = self.emitter.constant(self.filters(shape, np.prod(shape[1:])))
        options = schema.Conv2DOptionsT(1, stride, stride, activation, dilation, dilation)
        return self._window("CONV_2D", x, filters, outputs, stride, padding, options)

    def depthwise(self, x, kernel, stride=1, padding="same", multiplier=1, activation=0):
        outputs = multiplier * x.shape[3]
        values = self.rng.normal(size=(1, kernel, kernel, outputs)).astype(np.float32) / kernel
        options = schema.DepthwiseConv2DOptionsT(1, stride, stride, multiplier, activation, 1, 1)
        filters = self.emitter.constant(values)
        return self._window("DEPTHWISE_CONV_2D", x, filters, outputs, stride, padding, options)

    def _window(self, code, x, filters, outputs, stride, padding, options):
        dilation = options.dilationHFactor
        sizes = [(size - 1) * dilation + 1 for size in filters.shape[1:3]]
        pads = padding
        if padding == "same":
            axes = zip(x.shape[1:3], sizes, strict=True)
            pads = tuple(same_padding(size, kernel, stride) for size, kernel in axes)
        pads = NO_PADS if padding == "valid" else pads
        axes = zip(x.shape[1:3], sizes, pads, strict=True)
        spatial = [windows(size, kernel, stride, around) for size, kernel, around in axes]
        bias = self.emitter.constant(self.rng.normal(size=outputs).astype(np.float32) / 4)
        shape = (x.shape[0], *spatial, outputs)
        return self.emitter.emit(code, [x, filters, bias], shape, options, pads=pads)

    def pool(self, code, x, kernel, stride, padding="valid"):
        spatial = [
            -(-size // stride) if padding == "same" else windows(size, kernel, stride, (0, 0))
            for size in x.shape[1:3]
        ]
        options = schema.Pool2DOptionsT(int(padding == "valid"), stride, stride, kernel, kernel)
        return self.emitter.emit(code, [x], (x.shape[0], *spatial, x.shape[3]), options)

    def max_pool(self, x, kernel, stride, padding="valid"):
        return self.pool("MAX_POOL_2D", x, kernel, stride, padding)

    def average_pool(self, x, kernel, stride, padding="valid"):
        return self.pool("AVERAGE_POOL_2D", x, kernel, stride, padding)

    def unary(self, code, x, options=None):
        return self.emitter.emit(code, [x], x.shape, options)

    def relu(self, x):
        return self.unary("RELU", x)

    def add(self, a, b, activation=0):
        return self.emitter.add(a, b, activation)

    def multiply(self, a, b):
        shape = np.broadcast_shapes(a.shape, b.shape)
        return self.emitter.emit("MUL", [a, b], shape, schema.MulOptionsT(0))

    def affine(self, x):
        """A batch normalization that is folded into nothing."""
        scale, shift = self.rng.normal(size=(2, x.shape[3])).astype(np.float32)
        y = self.multiply(x, self.emitter.constant(scale))
        return self.emitter.emit(
            "ADD", [y, self.emitter.constant(shift)], x.shape, schema.AddOptionsT(1)
        )

    def concat(self, *parts):
        shape = (*parts[0].shape[:3], sum(part.shape[3] for part in parts))
        options = schema.ConcatenationOptionsT(3)
        return self.emitter.emit("CONCATENATION", list(parts), shape, options)

    def upsample(self, x):
        shape = (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], x.shape[3])
        size = self.emitter.constant(np.array(shape[1:3], np.int32))
        return self.emitter.emit(
            "RESIZE_BILINEAR", [x, size], shape, schema.ResizeBilinearOptionsT(False, True)
        )

    def copied(self, x, factor=2):
        shape = (x.shape[0], factor * x.shape[1], factor * x.shape[2], x.shape[3])
        size = self.emitter.constant(np.array(shape[1:3], np.int32))
        options = schema.ResizeNearestNeighborOptionsT()
        return self.emitter.emit("RESIZE_NEAREST_NEIGHBOR", [x, size], shape, options)

    def tiled(self, x):
        """The same, as the converter writes it."""
        _, rows, columns, channels = x.shape
        for shape, times in (
            ((1, rows, 1, columns, channels), (1, 1, 2, 1, 1)),
            ((1, 2 * rows, columns, 1, channels), (1, 1, 1, 2, 1)),
        ):
            x = self.reshaped(x, shape)
            size = [a * b for a, b in zip(shape, times, strict=True)]
            inputs = [x, self.emitter.constant(np.array(times, np.int32))]
            x = self.emitter.emit("TILE", inputs, size, schema.TileOptionsT())
        return self.reshaped(x, (1, 2 * rows, 2 * columns, channels))

    def reshaped(self, x, shape):
        shape = np.array(shape, np.int32)
        inputs = [x, self.emitter.constant(shape)]
        return self.emitter.emit("RESHAPE", inputs, shape, schema.ReshapeOptionsT(shape))

    def transposed(self, x, outputs, kernel, stride, padding="same"):
        shape = (x.shape[0], stride * x.shape[1], stride * x.shape[2], outputs)
        filters = self.filters((outputs, kernel, kernel, x.shape[3]), x.shape[3])
        constants = [np.array(shape, np.int32), filters, self.rng.normal(size=outputs)]
        size, weights, bias = map(self.emitter.constant, constants)
        options = schema.TransposeConvOptionsT(int(padding == "valid"), stride, stride, 1)
        return self.emitter.emit("TRANSPOSE_CONV", [size, weights, x, bias], shape, options)

    def mean(self, x, keep_axes=False):
        shape = (x.shape[0], 1, 1, x.shape[3]) if keep_axes else (x.shape[0], x.shape[3])
        self.emitter.ops.append(mean(x, Tensor("mean", shape), keep_axes))
        return self.emitter.ops[-1].output

    def dense(self, x, outputs):
        weights = self.rng.normal(size=(outputs, x.shape[-1])).astype(np.float32) / 4
        options = schema.FullyConnectedOptionsT()
        return self.emitter.emit(
            "FULLY_CONNECTED", [x, self.emitter.constant(weights), None], (1, outputs), options
        )

    def program(self, *outputs):
        for number, tensor in enumerate(outputs):
            tensor.name = f"output_{number}"
        return Program(self.emitter.ops, self.inputs, list(outputs))

    def written(self, *outputs):
        return write_program(self.program(*outputs))


def run(content, seed=0):
    """Compute the outputs of a file for random inputs."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        values = rng.normal(size=detail["shape"]).astype(np.float32)
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def apart(found, expected):
    """Return the largest difference over the largest value."""
    tiny = np.finfo(np.float32).tiny
    return max(
        np.abs(a - b).max() / max(np.abs(b).max(), tiny)
        for a, b in zip(found, expected, strict=True)
    )

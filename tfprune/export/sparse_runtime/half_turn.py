"""The half-turn: a model turned by 180 degrees computes the same, and fits into sparse mode.

Keras's mobile models pad their stride-2 convolutions with 0 before and 1 after, and XNNPACK's
sparse kernels want 1 on both sides. With every kernel flipped on both spatial axes and the input
flipped once, each of those paddings becomes 1 before and 0 after; and on an even size another zero
after changes nothing, for no window reaches it. Global pooling does not see the turn.

What sees it (a Flatten of a map, position embeddings, per-pixel outputs) is not looked for here:
the caller compares the outputs of both models.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfprune.errors import UnsupportedModelError

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
Pads = tuple[tuple[int, int], tuple[int, int]]


def turn(model: keras.Model) -> keras.Model:
    """Return a copy of a Functional or Sequential model, turned by 180 degrees.

    1x1 convolutions behind the last pooling over space become Dense layers: in sparse mode they
    would be taken for a part of the cluster before it, and compute garbage.

    Args:
        model: a plain model whose inputs have channels last.

    Raises:
        UnsupportedModelError: the model cannot be rebuilt.

    Example:
        >>> layers = keras.layers
        >>> inputs = keras.Input((8, 8, 3))
        >>> x = layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
        >>> model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
        >>> x = np.random.default_rng(0).random((1, 8, 8, 3), "float32")
        >>> bool(np.allclose(turn(model)(x), model(x), atol=1e-6))
        True
    """
    flat = [tensor for tensor in model.inputs if len(tensor.shape) == 4]
    if not flat:
        raise UnsupportedModelError(f"{model.name!r} has no input of images to turn.")
    head = _head_convolutions(model)
    rebuilt: dict[str, keras.layers.Layer] = {}

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if layer.name in head:
            return _dense(layer, head[layer.name], *args)
        if isinstance(layer, _CONVOLUTIONS) and layer.padding == "same":
            return _call_padded(layer, *args)
        return layer(*args, **kwargs)

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            raise UnsupportedModelError(f"{layer.name!r} is a model inside of the model.")
        config = layer.get_config()
        if isinstance(layer, keras.layers.ZeroPadding2D):
            config["padding"] = _turned_padding(layer)
        rebuilt[layer.name] = layer.__class__.from_config(config)
        return rebuilt[layer.name]

    try:
        turned = keras.models.clone_model(model, clone_function=copy, call_function=call)
    except (ValueError, TypeError) as error:
        raise UnsupportedModelError(f"{model.name!r} cannot be turned: {error}") from error
    for layer in model.layers:
        if layer.weights and layer.name not in head:
            rebuilt[layer.name].set_weights(_turned_weights(layer))
    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    flipped = [keras.ops.flip(x, (1, 2)) if len(x.shape) == 4 else x for x in inputs]
    outputs = turned(keras.tree.pack_sequence_as(turned._inputs_struct, flipped))
    return keras.Model(inputs, outputs, name=model.name)


def _turned_weights(layer: keras.layers.Layer) -> list[np.ndarray]:
    weights = layer.get_weights()
    if isinstance(layer, _CONVOLUTIONS):
        weights[0] = weights[0][::-1, ::-1]
    elif isinstance(layer, keras.layers.SeparableConv2D):
        weights[0] = weights[0][::-1, ::-1]
    return weights


def _turned_padding(layer: keras.layers.ZeroPadding2D) -> Pads:
    """Return the padding from the other side, evened out where no window sees the difference."""
    (top, bottom), (left, right) = layer.padding
    turned = [(bottom, top), (right, left)]
    consumers = [node.operation for node in layer._outbound_nodes]
    if len(consumers) != 1 or not isinstance(consumers[0], _CONVOLUTIONS):
        return tuple(turned)  # type: ignore[return-value]
    (convolution,) = consumers
    if convolution.padding != "valid":
        return tuple(turned)  # type: ignore[return-value]
    sizes = layer.input.shape[1:3]
    return tuple(  # type: ignore[return-value]
        _evened(size, pads, kernel, stride)
        for size, pads, kernel, stride in zip(
            sizes, turned, convolution.kernel_size, convolution.strides, strict=True
        )
    )


def _evened(size: int, pads: tuple[int, int], kernel: int, stride: int) -> tuple[int, int]:
    """Pad as much after as before, if that makes no further window."""
    before, after = pads
    windows = (size + before + after - kernel) // stride
    if after < before and (size + 2 * before - kernel) // stride == windows:
        return before, before
    return pads


def _call_padded(layer: Any, inputs: Any) -> Any:
    """Call a convolution of padding `same` as it is, or with the turned padding made explicit."""
    pads = []
    for size, kernel, stride in zip(
        inputs.shape[1:3], layer.kernel_size, layer.strides, strict=True
    ):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads.append(_evened(size, (total - total // 2, total // 2), kernel, stride))
    if layer.strides == (1, 1) and all(before == after for before, after in pads):
        return layer(inputs)
    layer.padding = "valid"
    return layer(keras.layers.ZeroPadding2D(tuple(pads))(inputs))


def _head_convolutions(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return the 1x1 convolutions whose outputs never meet a map again, by name."""
    spatial: dict[int, bool] = {}
    for operation in reversed(model.operations):
        outputs = keras.tree.flatten(operation.output)
        own = any(len(x.shape) == 4 and x.shape[1:3] != (1, 1) for x in outputs)
        after = any(
            spatial.get(id(node.operation), False) for node in operation._outbound_nodes
        )
        spatial[id(operation)] = own or after
    return {
        layer.name: layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
        and layer.kernel_size == (1, 1)
        and layer.groups == 1
        and layer.input.shape[1:3] == (1, 1)
        and not spatial[id(layer)]
    }


def _dense(copy: Any, original: Any, inputs: Any) -> Any:
    del copy
    dense = keras.layers.Dense(
        original.filters,
        activation=original.activation,
        use_bias=original.use_bias,
        dtype=original.dtype_policy,
        name=original.name,
    )
    x = dense(keras.layers.Reshape((inputs.shape[-1],))(inputs))
    kernel, *bias = original.get_weights()
    dense.set_weights([kernel[0, 0], *bias])
    return keras.layers.Reshape((1, 1, original.filters))(x)

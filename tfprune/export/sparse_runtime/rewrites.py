"""Exact rewrites of Keras models that bring them into XNNPACK's sparse mode.

`turn`: Keras's mobile models pad their stride-2 convolutions with 0 before and 1 after, and the
sparse kernels want 1 on both sides. Turned by 180 degrees - every kernel flipped on both spatial
axes, the input flipped once -, each of those paddings is 1 before and 0 after; and on an even size
another zero after changes nothing, for no window reaches it. Global pooling does not see the turn.

`settle_head`: 1x1 convolutions behind the last pooling over space become Dense layers, which they
are. In sparse mode they would be taken for a part of the cluster before them, and compute garbage.

What sees the turn (a Flatten of a map, position embeddings, per-pixel outputs) is not looked for
here: the caller compares the outputs of both models.
"""

from __future__ import annotations

from typing import Any

import keras

from tfprune.cloning import is_rebuildable
from tfprune.errors import UnsupportedModelError

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
_FLIPPED = (*_CONVOLUTIONS, keras.layers.SeparableConv2D)
Pads = tuple[int, int]


def settle_head(model: keras.Model) -> keras.Model | None:
    """Return a copy of a model with a head of Dense layers; None if it has no other.

    Raises:
        UnsupportedModelError: the model cannot be rebuilt.
    """
    model = _functional(model)
    head = _head_convolutions(model)
    return _rebuilt(model, head, turned=False) if head else None


def turn(model: keras.Model) -> keras.Model:
    """Return a copy of a model that is turned by 180 degrees, with a head of Dense layers.

    Args:
        model: a plain Functional or Sequential model; images have channels last.

    Raises:
        UnsupportedModelError: the model cannot be rebuilt, or has no images.

    Example:
        >>> layers = keras.layers
        >>> inputs = keras.Input((8, 8, 3))
        >>> x = layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
        >>> model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
        >>> x = np.random.default_rng(0).random((1, 8, 8, 3), "float32")
        >>> bool(np.allclose(turn(model)(x), model(x), atol=1e-6))
        True
    """
    model = _functional(model)
    if not any(len(tensor.shape) == 4 for tensor in model.inputs):
        raise UnsupportedModelError(f"{model.name!r} has no input of images to turn.")
    turned = _rebuilt(model, _head_convolutions(model), turned=True)
    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    flipped = [keras.ops.flip(x, (1, 2)) if len(x.shape) == 4 else x for x in inputs]
    outputs = turned(keras.tree.pack_sequence_as(turned.input, flipped))
    return keras.Model(keras.tree.pack_sequence_as(model.input, inputs), outputs, name=model.name)


def _functional(model: keras.Model) -> keras.Model:
    if not is_rebuildable(model):
        raise UnsupportedModelError(
            f"{model.name!r} is a class of its own, which cannot be rebuilt."
        )
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def _rebuilt(model: keras.Model, head: set[str], turned: bool) -> keras.Model:
    rebuilt: dict[str, keras.layers.Layer] = {}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            raise UnsupportedModelError(f"{layer.name!r} is a model inside of the model.")
        config = layer.get_config()
        if turned and isinstance(layer, keras.layers.ZeroPadding2D):
            config["padding"] = _turned_padding(layer)
        rebuilt[layer.name] = layer.__class__.from_config(config)
        return rebuilt[layer.name]

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if layer.name in head:
            return _call_dense(model.get_layer(layer.name), *args)
        if turned and isinstance(layer, _CONVOLUTIONS):
            return _call_turned(layer, model.get_layer(layer.name), *args)
        return layer(*args, **kwargs)

    try:
        clone = keras.models.clone_model(model, clone_function=copy, call_function=call)
    # A layer that is called twice has no one input; a class may refuse its own config.
    except (AttributeError, TypeError, ValueError) as error:
        raise UnsupportedModelError(f"{model.name!r} cannot be rebuilt: {error}") from error
    for layer in model.layers:
        if layer.weights and layer.name not in head:
            weights = layer.get_weights()
            if turned and isinstance(layer, _FLIPPED):
                weights[0] = weights[0][::-1, ::-1]
            rebuilt[layer.name].set_weights(weights)
    return clone


def _turned_padding(layer: keras.layers.ZeroPadding2D) -> tuple[Pads, Pads]:
    """Return the padding from the other side, evened out where no window sees the difference."""
    turned = [pads[::-1] for pads in layer.padding]
    consumers = [node.operation for node in layer._outbound_nodes]
    if len(consumers) == 1 and isinstance(consumers[0], _CONVOLUTIONS):
        (convolution,) = consumers
        if convolution.padding == "valid":
            sizes, kernels = layer.input.shape[1:3], convolution.kernel_size
            axes = zip(sizes, kernels, convolution.strides, turned, strict=True)
            turned = [_evened(*axis) for axis in axes]
    return turned[0], turned[1]


def _call_turned(layer: Any, original: Any, inputs: Any) -> Any:
    """Call a convolution so that its windows lie where those of the original do, turned."""
    pads, unseen = [], []
    axes = zip(original.input.shape[1:3], layer.kernel_size, layer.strides, strict=True)
    for size, kernel, stride in axes:
        before = after = 0
        if layer.padding == "same":
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            before, after = total // 2, total - total // 2
        # What no window of the original reaches at the end is at the beginning now.
        rest = (size + before + after - kernel) % stride
        cropped = max(rest - after, 0)
        unseen.append((cropped, 0))
        pads.append(_evened(size - cropped, kernel, stride, (max(after - rest, 0), before)))
    if any(map(any, unseen)):
        inputs = keras.layers.Cropping2D(tuple(unseen))(inputs)
    if layer.padding == "same" and layer.strides == (1, 1) and all(a == b for a, b in pads):
        return layer(inputs)
    layer.padding = "valid"
    if any(map(any, pads)):
        inputs = keras.layers.ZeroPadding2D(tuple(pads))(inputs)
    return layer(inputs)


def _evened(size: int, kernel: int, stride: int, pads: Pads) -> Pads:
    """Pad as much after as before, if that makes no further window."""
    before, after = pads
    windows = (size + before + after - kernel) // stride
    if after < before and (size + 2 * before - kernel) // stride == windows:
        return before, before
    return pads


def _head_convolutions(model: keras.Model) -> set[str]:
    """Return the names of 1x1 convolutions of 1x1 maps whose outputs never meet a map again."""
    meets_map: dict[int, bool] = {}
    for operation in reversed(model.operations):
        outputs = keras.tree.flatten(operation.output)
        meets_map[id(operation)] = any(
            len(x.shape) == 4 and x.shape[1:3] != (1, 1) for x in outputs
        ) or any(meets_map.get(id(node.operation), False) for node in operation._outbound_nodes)
    return {
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
        and layer.kernel_size == (1, 1)
        and layer.groups == 1
        and layer.input.shape[1:3] == (1, 1)
        and not meets_map[id(layer)]
    }


def _call_dense(convolution: Any, inputs: Any) -> Any:
    dense = keras.layers.Dense(
        convolution.filters,
        activation=convolution.activation,
        use_bias=convolution.use_bias,
        dtype=convolution.dtype_policy,
        name=convolution.name,
    )
    x = dense(keras.layers.Reshape((inputs.shape[-1],))(inputs))
    kernel, *bias = convolution.get_weights()
    dense.set_weights([kernel[0, 0], *bias])
    return keras.layers.Reshape((1, 1, convolution.filters))(x)

"""Which weights of which layer can be pruned.

A table maps layer classes to the names of their prunable weights; a subclass counts as its base.
Layers are found by walking sublayers, so an LSTM inside a Bidirectional, or a Dense inside a user's
own block, is found like any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import keras
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_conv_transpose import BaseConvTranspose
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv
from keras.src.layers.convolutional.base_separable_conv import BaseSeparableConv
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.kernel_layout import KernelLayout
from tfprune.sparse_part import SparsePart

LayoutRule = Callable[[Any, tuple[int, ...]], KernelLayout]


class SkipReason(Enum):
    """Why a weight is not pruned."""

    NOT_A_KERNEL = "not a kernel: name its path in `include` to prune it"
    ON_REQUEST = "depthwise kernel: name the layer in `include` to prune it"
    FROZEN = "the layer is not trainable: name it in `include` to prune it"
    UNKNOWN_LAYER = "unknown layer class: see `tfprune.register_prunable`"
    LORA = "LoRA is enabled on the layer: prune before enabling it, or merge it first"
    QUANTIZED = "the layer is quantized: prune before quantizing"
    NOT_INCLUDED = "not in `include`"
    EXCLUDED = "in `exclude`"
    NO_GAIN = "would gain nothing"
    TOO_FEW_CHANNELS = "no group of channels is large enough for the pattern"


@dataclass(frozen=True, eq=False)
class Candidate:
    """One weight of a model, with what is known about pruning it.

    Args:
        variable: the Keras variable.
        owners: the layers that contain it, outermost first; the last one created it.
        layout: roles of the weight's axes.
        reason: why it is not pruned by default, or `None` if it is.
        detail: what else there is to say on the reason.
        part: what a runtime runs sparse together with it, if the pattern looks at that.
    """

    variable: keras.Variable
    owners: tuple[keras.layers.Layer, ...]
    layout: KernelLayout
    reason: SkipReason | None
    detail: str = ""
    part: SparsePart | None = None

    @property
    def why(self) -> str:
        """The reason in words; empty if it is pruned."""
        return ": ".join(filter(None, [self.reason and self.reason.value, self.detail]))

    @property
    def layer(self) -> keras.layers.Layer:
        """The layer that created the weight."""
        return self.owners[-1]

    @property
    def path(self) -> str:
        """The weight's path, such as `"block/conv/kernel"`."""
        return self.variable.path


@dataclass(frozen=True)
class _Rule:
    weights: tuple[str, ...]
    on_request: tuple[str, ...]
    layout: LayoutRule | None


_RULES: dict[type, _Rule] = {}


def register_prunable(
    layer_class: type,
    weights: Sequence[str],
    *,
    on_request: Sequence[str] = (),
    layout: LayoutRule | None = None,
) -> None:
    """Tell which attributes of a layer class hold prunable weights.

    A layer class may instead define `get_prunable_weights()` that returns its variables.

    Args:
        layer_class: a subclass of `keras.layers.Layer`; its subclasses are covered too.
        weights: names of the attributes, such as `["kernel"]`.
        on_request: names of attributes that are pruned only when `include` names the layer.
        layout: function of `(layer, shape)` that returns the weight's `KernelLayout`; by default
            the axes are in Keras's usual order `(..., inputs, outputs)`.

    Raises:
        InvalidTypeError: if `layer_class` is not a Keras layer class.
        InvalidArgumentError: if the class is registered already, or no name is given.

    Example:
        >>> class Scale(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.matrix = self.add_weight(shape=(shape[-1], shape[-1]), name="matrix")
        >>> register_prunable(Scale, ["matrix"])
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        raise InvalidTypeError(
            f"`layer_class` must be a subclass of keras.layers.Layer. Received: {layer_class!r}"
        )
    if isinstance(weights, str) or not (weights or on_request):
        raise InvalidArgumentError(
            f"`weights` must be a list of attribute names, such as ['kernel']. "
            f"Received: {weights!r}"
        )
    known = _RULES.get(layer_class)
    rule = _Rule(tuple(weights), tuple(on_request), layout)
    if known is not None and known != rule:
        raise InvalidArgumentError(f"{layer_class.__name__} is registered already, as {known}.")
    _RULES[layer_class] = rule


def find_candidates(layer: keras.layers.Layer) -> list[Candidate]:
    """List every trainable-by-construction weight of a built layer or model.

    Args:
        layer: layer, model or pruning wrapper.

    Returns:
        The candidates in model order, a tied variable once, with the reason of each that is not
        pruned by default.
    """
    found: dict[int, Candidate] = {}
    for candidate in _walk(layer, ()):
        known = found.setdefault(id(candidate.variable), candidate)
        # A layer may keep another's kernel as its own attribute; the one that knows it decides.
        if known.reason in (SkipReason.NOT_A_KERNEL, SkipReason.UNKNOWN_LAYER):
            found[id(candidate.variable)] = candidate
    return list(found.values())


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the direct sublayers of a layer or model, in order."""
    if isinstance(layer, keras.Model):
        return layer.layers
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _walk(layer: keras.layers.Layer, owners: tuple[keras.layers.Layer, ...]) -> Iterator[Candidate]:
    owners = (*owners, layer)
    weights, on_request, layout_rule = _prunable_variables(layer)
    known = bool(weights or on_request) or type(layer).__module__.startswith("keras.")
    # Not `trainable_weights`: a frozen layer's weights may be named by the user.
    for variable in layer._trainable_variables:
        shape = tuple(variable.shape)
        reason = SkipReason.NOT_A_KERNEL if known else SkipReason.UNKNOWN_LAYER
        layout = KernelLayout.default(shape)
        if id(variable) in weights | on_request:
            reason = SkipReason.ON_REQUEST if id(variable) in on_request else None
            layout = layout_rule(layer, shape) if layout_rule else layout
            if heads := _heads(owners, shape):
                layout = dataclasses.replace(layout, heads=heads)
            if not variable.trainable:
                reason = SkipReason.FROZEN
        if getattr(layer, "quantization_mode", None):
            reason = SkipReason.QUANTIZED
        elif getattr(layer, "lora_enabled", False):
            reason = SkipReason.LORA
        yield Candidate(variable, owners, layout, reason)
    for sublayer in sublayers(layer):
        yield from _walk(sublayer, owners)


def _prunable_variables(
    layer: keras.layers.Layer,
) -> tuple[set[int], set[int], LayoutRule | None]:
    if callable(getattr(type(layer), "get_prunable_weights", None)):
        return {id(variable) for variable in layer.get_prunable_weights()}, set(), None
    rule = next((_RULES[cls] for cls in type(layer).__mro__ if cls in _RULES), None)
    if rule is None or not layer.built:
        return set(), set(), None

    def ids(names: tuple[str, ...]) -> set[int]:
        variables = (getattr(layer, name, None) for name in names)
        return {id(v) for v in variables if isinstance(v, keras.Variable)}

    return ids(rule.weights), ids(rule.on_request), rule.layout


def _heads(
    owners: tuple[keras.layers.Layer, ...], shape: tuple[int, ...]
) -> tuple[int, int] | None:
    """Return where the heads are in a kernel of an attention layer, and `None` for any other."""
    attention_layers = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    if len(owners) < 2 or not isinstance(owners[-2], attention_layers):
        return None
    attention, projection = owners[-2:]
    axis = 0 if projection is attention._output_dense else 1
    return axis, getattr(attention, "num_key_value_heads", shape[axis])


def _transposed_layout(layer: keras.layers.Layer, shape: tuple[int, ...]) -> KernelLayout:
    """Layout of `(..., outputs, inputs)`, the order of transposed convolutions."""
    rank = len(shape)
    return KernelLayout(shape, input_axes=(rank - 1,), output_axes=(rank - 2,))


def _einsum_layout(layer: keras.layers.EinsumDense, shape: tuple[int, ...]) -> KernelLayout:
    """Layout read off the equation: kernel axes that the output lacks are inputs."""
    operands, output = layer.equation.replace(" ", "").split("->")
    kernel = operands.split(",")[1]
    inputs = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
    outputs = tuple(axis for axis, letter in enumerate(kernel) if letter in output)
    return KernelLayout(shape, inputs, outputs)


for _layer_class in (keras.layers.Dense, BaseConv):
    register_prunable(_layer_class, ["kernel"])
register_prunable(BaseConvTranspose, ["kernel"], layout=_transposed_layout)
register_prunable(BaseSeparableConv, ["pointwise_kernel"], on_request=["depthwise_kernel"])
register_prunable(BaseDepthwiseConv, [], on_request=["kernel"])
register_prunable(keras.layers.EinsumDense, ["kernel"], layout=_einsum_layout)
register_prunable(keras.layers.Embedding, ["embeddings"])
register_prunable(keras.layers.ReversibleEmbedding, ["embeddings", "reverse_embeddings"])
for _layer_class in (
    keras.layers.LSTMCell,
    keras.layers.GRUCell,
    keras.layers.SimpleRNNCell,
    ConvLSTMCell,
):
    register_prunable(_layer_class, ["kernel", "recurrent_kernel"])

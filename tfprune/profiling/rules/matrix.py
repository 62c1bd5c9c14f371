"""Matrix products: Dense, EinsumDense, embeddings, Dot and the inline operations.

Every element of a Dense or Einsum kernel is used equally often, so MACs are the kernel's size times
the number of positions, or for an Einsum the product of all its index ranges.
"""

import math
from collections.abc import Iterable, Sequence

import keras
from keras.src.ops.numpy import Einsum, Matmul

from tfprune.profiling.rules.elementwise import activation_flops
from tfprune.profiling.rules.registry import Call, Shape, Work, register_macs


@register_macs(keras.layers.Dense)
def count_dense(layer, call: Call) -> Iterable[Work]:
    """One use of the kernel per position: all axes of the input but the last."""
    positions = math.prod(call.inputs[0][:-1])
    yield Work(macs=positions * math.prod(layer.kernel.shape), kernel=layer.kernel)
    yield Work(flops=_bias_and_activation(layer, call))


@register_macs(keras.layers.EinsumDense)
def count_einsum_dense(layer, call: Call) -> Iterable[Work]:
    """The product of the ranges of all indices in the equation."""
    macs = einsum_macs(layer.equation, [call.inputs[0], tuple(layer.kernel.shape)])
    yield Work(macs=macs, kernel=layer.kernel)
    yield Work(flops=_bias_and_activation(layer, call))


@register_macs(keras.layers.Embedding)
def count_embedding(layer, call: Call) -> Iterable[Work]:
    """A lookup: nothing is multiplied."""
    return ()


@register_macs(keras.layers.ReversibleEmbedding)
def count_reversible_embedding(layer, call: Call) -> Iterable[Work]:
    """A lookup, or with `reverse=True` a product with the (transposed) table."""
    if call.arguments.get("reverse"):
        kernel = layer.embeddings if layer.tie_weights else layer.reverse_embeddings
        positions = math.prod(call.inputs[0][:-1])
        soft_cap = 0 if layer.logit_soft_cap is None else 3 * call.output_elements
        yield Work(macs=positions * math.prod(kernel.shape), kernel=kernel, flops=soft_cap)


@register_macs(keras.layers.Dot)
def count_dot(layer, call: Call) -> Iterable[Work]:
    """Both inputs are activations; the shared axis is summed over."""
    first, second = call.inputs
    axis = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    # Normalizing takes a square, a sum and a scaling of every element.
    normalize = 3 * (math.prod(first) + math.prod(second)) if layer.normalize else 0
    yield Work(macs=call.output_elements * first[axis], flops=normalize)


@register_macs(Matmul)
def count_matmul(operation, call: Call) -> Iterable[Work]:
    """`keras.ops.matmul` or `@` written between the layers of a functional model."""
    yield Work(macs=call.output_elements * call.inputs[0][-1])


@register_macs(Einsum)
def count_einsum(operation, call: Call) -> Iterable[Work]:
    """`keras.ops.einsum` between the layers of a functional model, as one nest of loops."""
    operands = call.arguments["operands"]
    macs = (len(operands) - 1) * einsum_macs(operation.subscripts, operands)
    yield Work(macs=macs)


def einsum_macs(equation: str, shapes: Sequence[Shape]) -> int:
    """Number of steps of the loop nest that an einsum is.

    Args:
        equation: such as `"abc,cd->abd"`; may contain an ellipsis.
        shapes: the shape of each operand.

    Returns:
        The product of the ranges of all indices.

    Example:
        >>> einsum_macs("abc,cd->abd", [(1, 5, 8), (8, 3)])
        120
        >>> einsum_macs("...x,xy->...y", [(2, 5, 8), (8, 3)])
        240
    """
    ranges = {}
    operands = equation.replace(" ", "").split("->", maxsplit=1)[0].split(",")
    for labels, shape in zip(operands, shapes, strict=True):
        before, _, after = labels.partition("...")
        hidden = len(shape) - len(before) - len(after)
        # Ellipses are aligned at their right end, as in broadcasting.
        names = [*before, *(f"...{hidden - i}" for i in range(hidden)), *after]
        for name, size in zip(names, shape, strict=True):
            ranges[name] = max(ranges.get(name, 1), size)
    return math.prod(ranges.values())


def _bias_and_activation(layer, call: Call) -> int:
    bias = 0 if layer.bias is None else call.output_elements
    return bias + activation_flops(layer.activation, call.output_elements)

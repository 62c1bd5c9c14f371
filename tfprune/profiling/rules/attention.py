"""Attention: the score and the value products, which hold no weights.

The projections of MultiHeadAttention and GroupedQueryAttention are sublayers with their own rows.
The products are counted from the shapes, so that a fused kernel (flash attention) counts the same
as the plain one.
"""

import math
from collections.abc import Iterable

import keras

from tfprune.profiling.rules.registry import Call, Work, register_macs

# Scaling a score, and its share of the softmax.
_FLOPS_PER_SCORE = 2


@register_macs(keras.layers.MultiHeadAttention, includes=(keras.layers.Softmax,))
def count_multi_head_attention(layer, call: Call) -> Iterable[Work]:
    """Scores over the attended axes, per head and per position of all other axes."""
    query = call.arguments["query"][:-1]
    key = _key(call)[:-1]
    attended = layer.attention_axes
    scores = layer.num_heads * math.prod(query) * math.prod(key[axis] for axis in attended)
    yield Work(macs=scores * (layer.key_dim + layer.value_dim), flops=_FLOPS_PER_SCORE * scores)


@register_macs(keras.layers.GroupQueryAttention, includes=(keras.layers.Softmax,))
def count_grouped_query_attention(layer, call: Call) -> Iterable[Work]:
    """Every query head has its own scores, also where heads share their keys."""
    batch, queries = call.arguments["query"][:2]
    scores = batch * layer.num_query_heads * queries * _key(call)[1]
    yield Work(macs=2 * scores * layer.head_dim, flops=_FLOPS_PER_SCORE * scores)


@register_macs(keras.layers.Attention)
def count_attention(layer, call: Call) -> Iterable[Work]:
    """Dot-product attention, or with `score_mode="concat"` an elementwise score."""
    scores, width, value_width = _sizes(call)
    if layer.score_mode == "concat":
        # Add, tanh and sum per feature; the optional scale is one more.
        per_feature = 3 if layer.scale is None else 4
        yield Work(flops=scores * (per_feature * width + 1))
    else:
        scaled = 0 if layer.scale is None else scores
        yield Work(macs=scores * width, flops=scaled)
    yield Work(macs=scores * value_width, flops=scores)


@register_macs(keras.layers.AdditiveAttention)
def count_additive_attention(layer, call: Call) -> Iterable[Work]:
    """Bahdanau's score: the sum over features of scale * tanh(query + key)."""
    scores, width, value_width = _sizes(call)
    if layer.scale is None:
        yield Work(flops=3 * scores * width)
    else:
        yield Work(macs=scores * width, kernel=layer.scale, flops=2 * scores * width)
    yield Work(macs=scores * value_width, flops=scores)


def _key(call: Call):
    key = call.arguments.get("key")
    return call.arguments["value"] if key is None else key


def _sizes(call: Call) -> tuple[int, int, int]:
    """Number of scores, width of a query, width of a value."""
    query, value = call.inputs[:2]
    return math.prod(query[:-1]) * value[-2], query[-1], value[-1]

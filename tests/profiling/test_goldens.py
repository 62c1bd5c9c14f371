"""Counts that are known from the literature, or that a reader can compute by hand."""

import keras
import pytest

from tfprune.profiling import profile


def model_of(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


@pytest.mark.parametrize(
    ("family", "parameters", "macs"),
    [
        # The v1 network, strides in the first 1x1 convolution of a block; v1.5 has 4.09 G.
        ("ResNet50", 25_636_712, 3_857_973_248),
        # 569 M in Howard et al. 2017, table 4.
        ("MobileNet", 4_253_864, 568_740_352),
        # 300 M in Sandler et al. 2018, table 4.
        ("MobileNetV2", 3_538_984, 300_774_272),
    ],
)
def test_published_networks_have_their_published_macs(family, parameters, macs):
    model = getattr(keras.applications, family)(weights=None)
    report = profile(model, gzip=False)
    assert report.macs == macs
    assert report.parameters == parameters == model.count_params()
    assert report.uncounted == ()


def test_a_small_vgg_counts_as_by_hand():
    model = model_of(
        (8, 8, 3),
        keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Conv2D(6, 3, padding="same", activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    )
    report = profile(model)
    macs = [8 * 8 * 3 * 3 * 3 * 4, 4 * 4 * 3 * 3 * 4 * 6, 96 * 10]
    assert [row.macs for row in report.layers if row.macs] == macs
    bias_and_relu = 2 * 8 * 8 * 4 + 2 * 4 * 4 * 6 + 10
    pooling = 4 * 4 * 4 * 4
    assert report.flops == 2 * sum(macs) + bias_and_relu + pooling


def test_multi_head_attention_is_four_projections_and_two_products():
    heads, key_dim, value_dim, width, queries, keys = 2, 4, 3, 8, 5, 7
    query, value = keras.Input((queries, width)), keras.Input((keys, width))
    layer = keras.layers.MultiHeadAttention(heads, key_dim, value_dim, name="mha")
    report = profile(keras.Model([query, value], layer(query, value)))
    macs = {row.path: row.macs for row in report.layers}
    assert macs == {
        "mha": heads * queries * keys * (key_dim + value_dim),
        "mha/query": queries * width * heads * key_dim,
        "mha/key": keys * width * heads * key_dim,
        "mha/value": keys * width * heads * value_dim,
        "mha/attention_output": queries * heads * value_dim * width,
    }


def test_grouped_query_attention_scores_every_query_head():
    queries, width, heads, groups, head_dim = 6, 8, 4, 2, 3
    x = keras.Input((queries, width))
    layer = keras.layers.GroupQueryAttention(head_dim, heads, groups, name="gqa")
    macs = {row.path: row.macs for row in profile(keras.Model(x, layer(x, x))).layers}
    assert macs["gqa"] == heads * queries * queries * 2 * head_dim
    assert macs["gqa/query"] == queries * width * heads * head_dim
    assert macs["gqa/key"] == queries * width * groups * head_dim


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
def test_attention_axes_multiply_only_what_they_attend(axes):
    x = keras.Input((3, 4, 8))
    layer = keras.layers.MultiHeadAttention(2, 5, attention_axes=axes, name="mha")
    report = profile(keras.Model(x, layer(x, x)))
    attended = {(1,): 3, (2,): 4, (1, 2): 12}[axes]
    assert report.layers[0].macs == 2 * 12 * attended * (5 + 5)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_way_attention_is_computed_does_not_change_its_count(dropout):
    # Fused without dropout; with it Keras multiplies step by step and calls a Softmax layer.
    x = keras.Input((6, 8))
    layer = keras.layers.MultiHeadAttention(2, 4, dropout=dropout, name="mha")
    report = profile(keras.Model(x, layer(x, x)))
    assert report.macs == 4 * 6 * 8 * 8 + 2 * 6 * 6 * 8
    assert report.layers[0].flops == 2 * (2 * 6 * 6 * 8) + 2 * (2 * 6 * 6)


GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}


@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("name", GATES)
def test_a_recurrent_layer_is_its_step_times_the_steps(name, unroll):
    steps, features, units = 9, 5, 6
    layer = getattr(keras.layers, name)(units, unroll=unroll)
    (row,) = profile(model_of((steps, features), layer)).layers
    assert row.macs == steps * GATES[name] * (features + units) * units
    assert row.parameters == layer.count_params()


def test_lstm_flops_count_every_gate_operation():
    (row,) = profile(model_of((9, 5), keras.layers.LSTM(6))).layers
    # Bias, sum and activation of 4 gates; f c + i g; tanh(c) and its product with o.
    assert row.flops - 2 * row.macs == 9 * 6 * (4 + 4 + 4 + 3 + 2)


@pytest.mark.parametrize("return_sequences", [True, False])
def test_convolutional_lstm_counts_both_convolutions_at_the_output_positions(return_sequences):
    layer = keras.layers.ConvLSTM2D(4, 3, return_sequences=return_sequences)
    (row,) = profile(model_of((5, 8, 8, 2), layer)).layers
    assert row.macs == 5 * 6 * 6 * 3 * 3 * 4 * (2 + 4) * 4


def test_an_embedding_multiplies_nothing_until_it_is_reversed():
    class Tied(keras.Model):
        def __init__(self):
            super().__init__()
            self.table = keras.layers.ReversibleEmbedding(100, 8)

        def call(self, tokens):
            return self.table(self.table(tokens), reverse=True)

    model = Tied()
    model(keras.ops.zeros((1, 7), "int32"))
    (row,) = profile(model).layers
    assert (row.calls, row.parameters, row.macs) == (2, 800, 7 * 8 * 100)
    plain = model_of((7,), keras.layers.Embedding(100, 8))
    assert profile(plain).macs == profile(plain).flops == 0

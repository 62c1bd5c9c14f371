import keras
import numpy as np
import pytest

import tfprune
from tests.structured.channel_zoo import ZOO, mixing, residual_conv, transformer
from tests.structured.cuts import assert_cuts_exactly, cut, randomize
from tfprune.errors import InvalidArgumentError, UnsupportedModelError, VerificationError
from tfprune.structured import ChannelGraph, verify

layers = keras.layers


@pytest.mark.parametrize("kind", ZOO)
def test_every_node_of_a_cut_model_agrees_with_the_original(kind):
    model = ZOO[kind]()
    small, _, graph = assert_cuts_exactly(model)
    assert graph.groups
    assert [x.shape for x in small.outputs] == [x.shape for x in model.outputs]
    assert [weight.path for weight in small.weights] == [weight.path for weight in model.weights]


@pytest.mark.parametrize("share", [0.05, 0.95])
def test_the_smallest_and_the_largest_cut_agree_as_well(share):
    assert_cuts_exactly(residual_conv(), share)


def test_groups_read_as_causes_and_effects():
    graph = ChannelGraph(residual_conv())
    assert str(graph) == (
        "stem: 8 channels in 8 units\n"
        "  stem + down => norm => up (reads) => head (reads)\n"
        "up: 12 channels in 12 units\n"
        "  up => down (reads)\n"
        "frozen: 2 of head (an output of the model)"
    )


def test_every_frozen_channel_has_a_reason():
    graph = ChannelGraph(mixing())
    assert not graph.groups
    reasons = [frozen.reason for frozen in graph.frozen]
    for part in (
        "the activation 'softmax' of dense",
        "softmax (Softmax) mixes them",
        "layer_norm='allow' lets them go",
        "unit_normalization (UnitNormalization) mixes them",
        "add (Add) does not compute the same on fewer channels",
        "mean (Mean) mixes them",
        "an output of the model",
    ):
        assert any(part in reason for reason in reasons), part


def test_allowed_layer_norms_are_cut_and_their_statistics_taken_into_account():
    model = transformer(lambda: layers.MultiHeadAttention(2, 4))()
    frozen = {f.layer for f in ChannelGraph(model).frozen}
    assert {"embedding", "embedding_1"} <= frozen
    small, _, graph = assert_cuts_exactly(model, layer_norm="allow")
    assert {frozen.layer for frozen in graph.frozen} == {"dense_4"}
    assert small.get_layer("layer_normalization").gamma.shape[0] < 12


def test_heads_and_widths_of_attention_are_units():
    model = transformer(lambda: layers.MultiHeadAttention(4, 8, value_dim=6))()
    groups = {len(group.units) for group in ChannelGraph(model).groups}
    assert {4, 8, 6} <= groups
    small, _, _ = cut(model, share=0.5)
    attention = small.get_layer("multi_head_attention")
    assert (attention.num_heads, attention.key_dim, attention.value_dim) == (2, 4, 3)


def test_query_heads_go_with_the_key_value_head_they_share():
    model = transformer(lambda: layers.GroupQueryAttention(4, 6, 2))()
    small, _, _ = cut(model, share=0.5)
    attention = small.get_layer("grouped_query_attention")
    assert (attention.num_query_heads, attention.num_key_value_heads) == (3, 1)
    assert attention.head_dim == 2


def test_a_misplaced_slice_is_noticed_in_any_weight():
    model = residual_conv()
    small, history, _ = cut(model, share=0.3)
    for weight in small.weights:
        axis = max(range(len(weight.shape)), key=lambda a: weight.shape[a])
        right = keras.ops.convert_to_numpy(weight)
        weight.assign(np.roll(right, 1, axis))
        with pytest.raises(VerificationError, match="relative difference"):
            verify(model, small, history)
        weight.assign(right)
    assert verify(model, small, history).difference < 2e-5


def test_models_that_are_not_of_one_kind_are_not_compared():
    model = residual_conv()
    small, history, _ = cut(model)
    other = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(8, 3, name="stem")])
    with pytest.raises(InvalidArgumentError, match="has no 'norm', so it was not made from"):
        verify(model, other, history)
    with pytest.raises(InvalidArgumentError, match="do not take the same inputs"):
        verify(model, keras.Sequential([keras.Input((4,)), layers.Dense(2)]), history)
    assert "tensors compared" in str(verify(model, small, history))


def test_a_subclassed_model_is_refused_with_a_way_out():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model(np.ones((1, 3)))
    with pytest.raises(UnsupportedModelError, match="Build it as a Functional model"):
        ChannelGraph(model)


def test_unbuilt_and_pruned_models_are_refused(dense_net):
    with pytest.raises(UnsupportedModelError, match="not built yet"):
        ChannelGraph(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(UnsupportedModelError, match="tfprune.strip"):
        ChannelGraph(tfprune.prune(dense_net, 0.5))
    with pytest.raises(InvalidArgumentError, match="'freeze' or 'allow'"):
        ChannelGraph(dense_net, layer_norm="yes")


def test_a_layer_of_the_users_own_is_tested_and_not_trusted():
    class Scale(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), name="scale")

        def call(self, x):
            return x * self.scale

    class Ramp(Scale):
        def call(self, x):
            return x * self.scale * keras.ops.arange(1.0, 1.0 + x.shape[-1])

    def net(layer):
        inputs = keras.Input((5,))
        x = layer(layers.Dense(6, name="d")(inputs))
        return keras.Model(inputs, layers.Dense(2)(x))

    small, _, graph = assert_cuts_exactly(net(Scale(name="own")))
    assert [group.name for group in graph.groups] == ["d"]
    assert small.get_layer("own").scale.shape[0] < 6
    frozen = ChannelGraph(net(Ramp(name="own"))).frozen[0]
    assert (frozen.layer, frozen.reason) == (
        "d",
        "own (Ramp) does not compute the same on fewer channels",
    )


def test_mixed_precision_models_are_cut(dense_net):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = residual_conv()
    finally:
        keras.config.set_dtype_policy("float32")
    randomize(model)
    assert_cuts_exactly(model, tolerance=2e-2)


def test_functions_of_the_same_name_are_not_taken_for_one_another():
    def named(factor):
        def act(x):
            return x * factor

        return act

    inputs = keras.Input((5,))
    ramp = np.arange(1.0, 7.0, dtype="float32")
    x = layers.Activation(named(2.0))(layers.Dense(6, name="free")(inputs))
    x = layers.Activation(named(ramp))(layers.Dense(6, name="stuck")(x))
    graph = ChannelGraph(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    assert [group.name for group in graph.groups] == ["free"]
    assert [frozen.layer for frozen in graph.frozen] == ["stuck", "head"]


def test_weights_shared_between_layers_are_refused():
    class Reader(layers.Layer):
        def __init__(self, source, **kwargs):
            super().__init__(**kwargs)
            self.source = source

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.source.kernel))

    dense = layers.Dense(6, name="dense")
    inputs = keras.Input((5,))
    model = keras.Model(inputs, Reader(dense)(dense(inputs)))
    with pytest.raises(UnsupportedModelError, match="shared between layers: dense/bias, dense/k"):
        ChannelGraph(model)


def test_attention_scores_are_cut_with_their_heads():
    inputs = keras.Input((5, 6))
    attention = layers.MultiHeadAttention(4, 3, name="attention")
    x, scores = attention(inputs, inputs, return_attention_scores=True)
    outputs = [layers.Dense(2)(x), layers.Dense(2)(keras.ops.mean(scores, axis=1))]
    graph = ChannelGraph(keras.Model(inputs, outputs))
    # The mean over heads is one of all heads: they stay, the widths go.
    assert sorted(len(group.units) for group in graph.groups) == [3, 3, 6]
    flat = layers.Dense(2)(layers.Flatten()(scores))
    assert_cuts_exactly(keras.Model(inputs, [layers.Dense(2)(x), flat]))


APPLICATIONS = {
    "MobileNetV2": {"alpha": 0.35, "input_shape": (32, 32, 3)},
    "MobileNetV3Small": {"input_shape": (32, 32, 3)},
    "ResNet50": {"input_shape": (32, 32, 3)},
    "ResNet50V2": {"input_shape": (32, 32, 3)},
    "ResNet101": {"input_shape": (32, 32, 3)},
    "ResNet152": {"input_shape": (32, 32, 3)},
    "VGG16": {"input_shape": (32, 32, 3)},
    "MobileNet": {"input_shape": (32, 32, 3)},
    "EfficientNetB0": {"input_shape": (32, 32, 3)},
    "EfficientNetB7": {"input_shape": (32, 32, 3)},
    "EfficientNetV2B0": {"input_shape": (32, 32, 3)},
    "DenseNet121": {"input_shape": (32, 32, 3)},
    "InceptionV3": {"input_shape": (75, 75, 3)},
    "InceptionResNetV2": {"input_shape": (75, 75, 3)},
    "Xception": {"input_shape": (71, 71, 3)},
    "NASNetMobile": {"input_shape": (32, 32, 3)},
    "ConvNeXtTiny": {"input_shape": (32, 32, 3)},
}
_QUICK = ("MobileNetV2",)


@pytest.mark.parametrize(
    "name",
    [
        name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in APPLICATIONS
    ],
)
def test_stock_models_are_cut_exactly(name):
    make = getattr(keras.applications, name)
    model = make(weights=None, classes=10, **APPLICATIONS[name])
    layer_norm = "allow" if name.startswith("ConvNeXt") else "freeze"
    small, _, graph = assert_cuts_exactly(model, share=0.3, layer_norm=layer_norm, tolerance=1e-4)
    # Only the classifier's outputs, and gates of a single channel, stay.
    assert all(frozen.channels in (1, 10) for frozen in graph.frozen)
    assert small.count_params() < 0.6 * model.count_params()

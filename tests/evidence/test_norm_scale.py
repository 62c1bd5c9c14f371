"""The scale of the normalization layer that follows a layer."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import UnsupportedModelError
from tfprune.evidence import Probe, gather
from tfprune.pruned_weight import PrunedWeight
from tfprune.selection import select_weights

layers = keras.layers


def scales(model, include=None):
    weights = [
        PrunedWeight(c.variable, c.layout, owners=c.owners)
        for c in select_weights(model, include)
        if c.reason is None
    ]
    return [evidence["norm_scale"] for evidence in gather(["norm_scale"], Probe(model, weights))]


def with_gamma(norm, gamma):
    norm.gamma.assign(gamma)
    return norm


@pytest.mark.parametrize(
    "norm",
    [
        layers.BatchNormalization,
        layers.LayerNormalization,
        lambda: layers.GroupNormalization(groups=1),
    ],
)
def test_the_scale_is_the_absolute_gamma_on_the_output_axis(norm):
    norm = norm()
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3), norm, layers.ReLU()])
    with_gamma(norm, [0.5, -2.0, 0.0])
    [scale] = scales(model)
    assert scale.tolist() == [[[[0.5, 2.0, 0.0]]]]


def test_the_norm_may_come_after_the_activation_and_beyond_nested_models():
    inputs = keras.Input((6,))
    block = keras.Sequential([layers.Dense(3, activation="relu", name="deep")])
    norm = layers.BatchNormalization()
    x = norm(block(inputs))
    second = layers.Dense(2, name="second")
    second_norm = layers.BatchNormalization()
    x = keras.Sequential([layers.ReLU(), second_norm])(second(x))
    model = keras.Model(inputs, x)
    with_gamma(norm, [1.0, 2.0, 3.0])
    with_gamma(second_norm, [4.0, 5.0])
    assert [scale.tolist() for scale in scales(model)] == [[[1.0, 2.0, 3.0]], [[4.0, 5.0]]]


def test_the_scale_is_found_in_a_pruned_model_and_for_depthwise_and_transposed_kernels():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            layers.BatchNormalization(),
            layers.Conv2DTranspose(3, 2),
            layers.BatchNormalization(),
        ]
    )
    with_gamma(model.layers[1], [1.0, 2.0, 3.0, 4.0])
    with_gamma(model.layers[3], [5.0, 6.0, 7.0])
    pruned = tfprune.prune(model, schedule=0.5, include=lambda layer: True)
    for candidate in (model, pruned):
        depthwise, transposed = scales(candidate, include=lambda layer: hasattr(layer, "kernel"))
        assert depthwise.tolist() == [[[[1.0, 2.0], [3.0, 4.0]]]]
        assert transposed.tolist() == [[[[5.0], [6.0], [7.0]]]]


def test_resnet_has_a_scale_for_all_its_convolutions():
    model = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg"
    )
    assert len(scales(model)) == 53


def test_all_layers_without_a_norm_are_named():
    inputs = keras.Input((4,))
    x = layers.BatchNormalization()(layers.Dense(3, name="normed")(inputs))
    x = layers.BatchNormalization(scale=False)(layers.Dense(3, name="unscaled")(x))
    x = layers.Dense(3, name="branching")(x)
    x = layers.BatchNormalization()(x) + x
    x = layers.LayerNormalization(axis=(1, 2))(layers.Dense(2, name="other")(x[:, None]))
    model = keras.Model(inputs, layers.Dense(1, name="last")(x))
    expected = "unscaled/kernel .*branching/kernel .*other/kernel .*last/kernel .*exclude"
    with pytest.raises(UnsupportedModelError, match=expected) as error:
        scales(model)
    assert "normed" not in str(error.value)


def test_a_model_without_a_graph_is_refused():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, name="dense")
            self.norm = layers.BatchNormalization()

        def call(self, x):
            return self.norm(self.dense(x))

    model = Own()
    model(np.ones((2, 4), "float32"))
    with pytest.raises(UnsupportedModelError, match=r"Functional or Sequential.*dense/kernel"):
        scales(model)

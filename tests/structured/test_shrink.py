import keras
import numpy as np
import pytest

import tfprune
from tests.structured.channel_zoo import residual_conv
from tests.structured.cuts import randomize
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.structured import (
    ChannelGraph,
    ShrinkHistory,
    history_of,
    recalibrate_batch_norm,
    replay,
    verify,
)

layers, targets = keras.layers, tfprune.targets


@pytest.fixture
def net():
    """A convolutional net with widths 32, 64, 64 and 24, and random weights."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(32, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(64, 3, strides=2, name="body")(x)
    x = layers.BatchNormalization(name="norm2")(x)
    y = layers.Conv2D(64, 3, padding="same", name="branch")(layers.ReLU()(x))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    x = layers.Dense(24, activation="relu", name="hidden")(layers.Dropout(0.2)(x))
    model = keras.Model(inputs, layers.Dense(10, activation="softmax", name="head")(x), name="net")
    randomize(model)
    return model


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 8, 8, 3)).astype("float32"), rng.integers(0, 10, 16)


def widths(model):
    return {name: model.get_layer(name).bias.shape[0] for name in ("stem", "body", "hidden")}


def test_a_fraction_is_the_share_of_channels_that_stays(net):
    small = tfprune.shrink(net, 0.5)
    assert widths(small) == {"stem": 16, "body": 32, "hidden": 12}
    assert verify(net, small, history_of(small)).difference < 2e-5
    assert not small.compiled
    assert widths(net) == {"stem": 32, "body": 64, "hidden": 24}


def test_the_channels_with_the_least_coupled_weights_go(net):
    stem, body = net.get_layer("stem"), net.get_layer("body")
    kernel = keras.ops.convert_to_numpy(stem.kernel).copy()
    kernel[..., 5] *= 1e-3
    stem.kernel.assign(kernel)
    reader = keras.ops.convert_to_numpy(body.kernel).copy()
    reader[:, :, 5] *= 1e-3
    # Small where it is made, but weighty where it is read.
    kernel[..., 9] *= 1e-3
    reader[:, :, 9] *= 30
    body.kernel.assign(reader)
    small = tfprune.shrink(net, 0.97, include="stem")
    [axis] = [axis for axis in history_of(small).axes if axis.removed]
    assert axis.removed == (5,)


@pytest.mark.parametrize(
    "target",
    [
        targets.Parameters(0.5),
        targets.Parameters(20_000),
        targets.Flops(0.5),
        targets.Channels(0.3),
    ],
)
@pytest.mark.parametrize("scope", ["local", "global"])
def test_targets_are_reached_within_a_percent(net, target, scope):
    small = tfprune.shrink(net, target, scope=scope, max_ratio=0.9)
    measure = {
        targets.Parameters: lambda model: model.count_params(),
        targets.Flops: lambda model: tfprune.profile(model, gzip=False).flops,
        targets.Channels: lambda model: sum(widths(model).values()),
    }[type(target)]
    wanted = target.wanted(measure(net))
    assert measure(small) == pytest.approx(wanted, rel=0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* remain, and .* were asked for")
def test_bytes_are_those_of_the_artifact(net, tmp_path):
    small = tfprune.shrink(net, targets.Bytes(0.5))
    sizes = [
        tfprune.export_model(model, tmp_path / str(i), "tflite")["tflite"].bytes
        for i, model in enumerate((net, small))
    ]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.02)


def test_what_misses_its_target_is_reported(dense_net):
    with pytest.warns(UserWarning, match="parameters remain, and 120 were asked for"):
        tfprune.shrink(dense_net, targets.Parameters(120), round_to=8)


def test_widths_are_rounded(net):
    small = tfprune.shrink(net, targets.Channels(0.6), round_to=8)
    assert all(width % 8 == 0 for width in widths(small).values())
    assert widths(small)["body"] == 40


@pytest.mark.parametrize(
    "criterion",
    ["l2", "fpgm", "random", "taylor", "activation_mean"],
)
def test_criteria_score_whole_units(net, batch, criterion):
    small = tfprune.shrink(net, 0.5, criterion, data=batch, loss="sparse_categorical_crossentropy")
    assert widths(small) == {"stem": 16, "body": 32, "hidden": 12}


def test_the_normalization_scale_decides_where_there_is_one(net):
    gamma = np.linspace(2, 1, 32)
    net.get_layer("norm").gamma.assign(gamma)
    small = tfprune.shrink(net, 0.75, "norm_scale", include="stem")
    np.testing.assert_allclose(small.get_layer("norm").gamma, gamma[:24], rtol=1e-6)
    with pytest.raises(InvalidArgumentError, match=r"there are none for: hidden"):
        tfprune.shrink(net, 0.5, "norm_scale")


def test_included_and_excluded_layers_are_those_that_make_the_channels(net):
    assert widths(tfprune.shrink(net, 0.5, include="stem")) == {
        "stem": 16,
        "body": 64,
        "hidden": 24,
    }
    assert widths(tfprune.shrink(net, 0.5, exclude=layers.Dense))["hidden"] == 24
    # Added to what `body` makes, so both stay.
    assert widths(tfprune.shrink(net, 0.5, exclude="branch"))["body"] == 64


def test_limits_hold_in_global_scope(net):
    small = tfprune.shrink(net, 0.5, scope="global", normalize=None, max_ratio=0.6)
    assert all(widths(small)[name] >= 0.4 * was for name, was in widths(net).items())
    small = tfprune.shrink(net, 0.3, scope="global", normalize=None, min_channels=8)
    assert min(widths(small).values()) >= 8


def test_a_shrunk_model_is_saved_trained_exported_and_shrunk_again(net, batch, tmp_path):
    net.get_layer("body").trainable = False
    small = tfprune.shrink(net, 0.5)
    assert [layer.name for layer in small.layers] == [layer.name for layer in net.layers]
    assert not small.get_layer("body").trainable
    configs = [model.get_layer("stem").get_config() for model in (net, small)]
    assert configs[1] == configs[0] | {"filters": 16}
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(loaded(batch[0]), small(batch[0]))
    again = tfprune.shrink(small, 0.5)
    assert widths(again) == {"stem": 8, "body": 16, "hidden": 6}
    assert verify(net, again, history_of(again)).difference < 2e-5
    small.compile("adam", "sparse_categorical_crossentropy")
    small.fit(*batch, verbose=0)
    report = tfprune.export_model(small, tmp_path / "out", ("savedmodel", "tflite"))
    assert report["tflite"].max_difference < 1e-4


def test_a_selection_of_channels_survives_saving(tmp_path):
    inputs = keras.Input((6,))
    x = layers.Dense(12, name="d")(inputs)
    a, b = keras.ops.split(x, 2, axis=-1)
    model = keras.Model(inputs, layers.Dense(2)(a * b + x[..., 3:9]))
    small = tfprune.shrink(model, 0.5)
    small.save(tmp_path / "small.keras")
    batch = np.random.default_rng(0).normal(size=(3, 6))
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(loaded(batch), small(batch))
    assert verify(model, loaded, history_of(small)).difference < 2e-5


def test_statistics_are_recalibrated_on_request(net, batch):
    small = tfprune.shrink(net, 0.5, data=batch, recalibrate=True)
    x = small.get_layer("stem")(batch[0])
    norm = small.get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean, np.mean(x, (0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, np.var(x, (0, 1, 2)), rtol=1e-4)
    with pytest.raises(InvalidArgumentError, match="some batches of typical inputs"):
        recalibrate_batch_norm(small, None)


def test_a_history_is_saved_and_replayed_on_the_same_architecture(tmp_path):
    model, other = residual_conv(), residual_conv()
    small = tfprune.shrink(model, 0.5)
    history_of(small).save(tmp_path / "cut.json")
    history = ShrinkHistory.load(tmp_path / "cut.json")
    assert history == history_of(small)
    again = replay(other, history)
    assert again.count_params() == small.count_params()
    assert verify(other, again, history).difference < 2e-5


def test_a_history_that_does_not_fit_is_refused(net, tmp_path):
    history = history_of(tfprune.shrink(net, 0.5))
    with pytest.raises(InvalidArgumentError, match="it has 5 axes of channels, the model 4"):
        replay(residual_conv(), history)
    values = history.to_dict()
    values["axes"][1]["removed"] = values["axes"][1]["removed"][1:]
    with pytest.raises(InvalidArgumentError, match="coupled in another way, at: body/kernel:3"):
        replay(net, ShrinkHistory.from_dict(values))
    values["axes"][1]["removed"] = [64]
    with pytest.raises(InvalidArgumentError, match="not indices below 64"):
        ShrinkHistory.from_dict(values)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InvalidArgumentError, match="not a history"):
        ShrinkHistory.load(tmp_path / "bad.json")
    with pytest.raises(InvalidArgumentError, match="was not shrunk in this process"):
        history_of(net)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 1.5}, "what remains"),
        ({"target": 0.02}, "out of reach"),
        ({"target": targets.Parameters(10**9)}, "has 58,514 parameters already"),
        ({"target": 0.5, "round_to": 48}, "larger than the width of: stem, hidden"),
        ({"target": 0.5, "round_to": 0}, "at least 1"),
        ({"target": 0.5, "scope": "all"}, "`scope` must be one of 'local'"),
        ({"target": 0.5, "normalize": "l2"}, "`normalize` must be one of"),
        ({"target": 0.5, "max_ratio": 0}, "`max_ratio` must be in"),
        ({"target": 0.5, "include": "nope"}, "Nothing in the model matches include='nope'"),
        ({"target": 0.5, "exclude": layers.Layer}, "protect every group"),
        ({"target": 0.5, "criterion": "taylor"}, "looks at data"),
        ({"target": 0.5, "criterion": "movement"}, "sums over training steps"),
        ({"target": 0.5, "recalibrate": True}, "needs `data`"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_built(net, arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        tfprune.shrink(net, **arguments)


def test_arguments_of_the_wrong_type_are_refused(net):
    for arguments in ({"target": "half"}, {"target": True}, {"target": 0.5, "round_to": 8.0}):
        with pytest.raises(InvalidTypeError):
            tfprune.shrink(net, **arguments)


def test_a_model_without_free_channels_says_why():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="only")])
    with pytest.raises(InvalidArgumentError, match=r"3 of only: an output of the model"):
        tfprune.shrink(model, 0.5)
    assert not ChannelGraph(model).groups


def test_targets_are_saved_like_other_settings():
    target = targets.Flops(0.5)
    assert targets.Target.get(target.serialize()) == target

import inspect
import re

import keras
import pytest

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.patterns import NM
from tfprune.prunable import SkipReason
from tfprune.selection import select_weights

layers = keras.layers


@pytest.fixture
def net():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, name="conv1")(inputs)
    x = layers.DepthwiseConv2D(3, name="depth")(x)
    x = layers.Conv2D(8, 1, name="conv2")(x)
    inner = keras.Sequential(
        [layers.Dense(4, name="fc1"), layers.Dense(2, name="fc2")], name="head"
    )
    model = keras.Model(inputs, inner(layers.Flatten()(x)))
    model.get_layer("conv2").trainable = False
    return model


def taken(net, **selectors):
    return [c.path for c in select_weights(net, **selectors) if c.reason is None]


KERNELS = ["conv1/kernel", "head/fc1/kernel", "head/fc2/kernel"]


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (None, KERNELS),
        ("conv1", ["conv1/kernel"]),
        ("head", KERNELS[1:]),
        (["conv1", "fc2"], ["conv1/kernel", "head/fc2/kernel"]),
        ("conv1/bias", ["conv1/bias"]),
        (
            re.compile("bias$"),
            ["conv1/bias", "depth/bias", "conv2/bias", "head/fc1/bias", "head/fc2/bias"],
        ),
        (re.compile("conv"), ["conv1/kernel", "conv2/kernel"]),
        ("conv2", ["conv2/kernel"]),
        ("depth", ["depth/kernel"]),
        (layers.Dense, KERNELS[1:]),
        (layers.Conv2D, ["conv1/kernel"]),
        (lambda layer: layer.name.endswith("1"), ["conv1/kernel", "head/fc1/kernel"]),
    ],
    # The text of a function holds its address, which differs between parallel test processes.
    ids=lambda value: "function" if inspect.isfunction(value) else str(value),
)
def test_include_takes_what_it_names(net, include, expected):
    assert taken(net, include=include) == expected


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        ("conv1", KERNELS[1:]),
        ("head", KERNELS[:1]),
        (re.compile("fc[12]/kernel"), KERNELS[:1]),
        ([layers.Conv2D, "fc1"], KERNELS[2:]),
    ],
    ids=str,
)
def test_exclude_leaves_what_it_names(net, exclude, expected):
    assert taken(net, exclude=exclude) == expected


def test_exclude_wins_over_include(net):
    assert taken(net, include=layers.Dense, exclude="fc1") == ["head/fc2/kernel"]


def test_reasons_tell_why_a_weight_stays(net):
    by_path = {c.path: c.reason for c in select_weights(net, include="head", exclude="fc1")}
    assert by_path["conv1/kernel"] is SkipReason.NOT_INCLUDED
    assert by_path["head/fc1/kernel"] is SkipReason.EXCLUDED
    assert by_path["conv2/kernel"] is SkipReason.FROZEN
    assert by_path["depth/kernel"] is SkipReason.ON_REQUEST


def test_a_kernel_with_too_few_channels_is_left_out_of_a_pattern(net):
    by_path = {c.path: c.reason for c in select_weights(net, pattern=NM(2, 4))}
    assert by_path["conv1/kernel"] is SkipReason.TOO_FEW_CHANNELS
    assert by_path["head/fc1/kernel"] is None


@pytest.mark.parametrize(
    ("selectors", "error", "message"),
    [
        ({"include": "conv"}, InvalidArgumentError, r"matches include='conv'.*conv1/kernel"),
        ({"include": ["conv1", "nope"]}, InvalidArgumentError, "include='nope'"),
        ({"exclude": re.compile("^fc")}, InvalidArgumentError, "matches exclude="),
        ({"exclude": [layers.LSTM]}, InvalidArgumentError, "LSTM"),
        ({"exclude": layers.Layer}, InvalidArgumentError, "nothing to prune in .*in `exclude`"),
        ({"include": []}, InvalidArgumentError, "nothing to prune"),
        ({"include": 3}, InvalidTypeError, "`include` takes layer names"),
        ({"exclude": [None]}, InvalidTypeError, "`exclude` takes layer names"),
    ],
)
def test_selectors_that_cannot_work_are_refused(net, selectors, error, message):
    with pytest.raises(error, match=message):
        select_weights(net, **selectors)

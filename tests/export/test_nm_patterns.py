"""N:M patterns in artifacts: small arrays by eye, and real files whose pattern was broken."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import VerificationError
from tfprune.export.nm_patterns import (
    Kernel,
    check_patterns,
    has_pattern,
    judged,
    model_kernels,
    pattern_shares,
    stored_kernels,
)
from tfprune.patterns import NM

layers = keras.layers


@pytest.mark.parametrize(
    ("column", "answer"),
    [
        ([1, 0, 0, 2], True),
        ([1, 0, 3, 2], False),
        ([0, 0, 1, 1, 1, 1, 0, 0], True),
        ([0, 0, 1, 1, 1, 1, 1], True),  # The last three fill no group.
        ([1, 1, 1], False),  # Nor do these, and there is no other.
    ],
)
def test_groups_of_four_inputs_hold_two_weights(column, answer):
    assert has_pattern(np.array(column, float)[None, :, None], 2, 4) is answer


def test_shares_count_kernels_and_weights():
    sparse, dense = np.zeros((1, 4, 3)), np.ones((1, 4, 1))
    sparse[:, :2] = 1
    (share,) = pattern_shares(judged([sparse, dense]))
    assert (share.pattern, share.kernels, share.of_kernels, share.weights) == ("2:4", 1, 2, 0.75)
    assert pattern_shares([]) == ()


def everything():
    image, series = keras.Input((8, 8, 4), name="image"), keras.Input((6, 8), name="series")
    x = layers.Conv2D(12, 3, strides=2)(image)
    x = layers.Flatten()(layers.Conv2DTranspose(8, 3)(x))
    y = layers.LSTM(4)(layers.MultiHeadAttention(2, 4)(series, series))
    return keras.Model([image, series], layers.Dense(3)(layers.Concatenate()([x, y])))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = tfprune.prune_once(everything(), 0.5, pattern=NM(2, 4))
    folder = tmp_path_factory.mktemp("patterns") / "out"
    formats = ["savedmodel", "tflite", "tflite_float16", "onnx"]
    return tfprune.export_model(model, folder, formats, packed=True, runs=1)


def test_every_format_has_the_default_direction_of_2_of_4(report):
    for artifact in report.artifacts:
        shares = {share.pattern: share for share in artifact.patterns}
        assert shares["2:4"].kernels == shares["2:4"].of_kernels >= 7, artifact.name
    assert "2:4 in " in str(report)


def test_a_report_with_patterns_survives_json(report):
    assert tfprune.export.ExportReport.load(report.directory) == report


@pytest.mark.parametrize("axis", ["input", "output"])
def test_only_the_inputs_count(axis, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16), layers.Dense(16)])
    model = tfprune.prune_once(model, 0.5, pattern=NM(2, 4, axis))
    formats = ["savedmodel", "tflite", "onnx"]
    report = tfprune.export_model(model, tmp_path / "out", formats, runs=1)
    found = {artifact.name: bool(artifact.patterns) for artifact in report.artifacts}
    assert set(found.values()) == {axis == "input"}


@pytest.mark.parametrize("name", ["savedmodel", "tflite", "onnx"])
def test_a_file_of_other_weights_has_lost_the_pattern(name, tmp_path):
    keras.utils.set_random_seed(0)
    dense = keras.Sequential([keras.Input((8,)), layers.Dense(16)])
    sparse = tfprune.prune_once(dense, 0.5, pattern="2:4")
    report = tfprune.export_model(dense, tmp_path / "out", name, runs=1)
    kernels = model_kernels(sparse)
    stored = judged(stored_kernels(report.path(name), [kernel.layout for kernel in kernels]))
    wanted = judged(k.layout.to_taps(np.asarray(k.variable)) for k in kernels)
    with pytest.raises(VerificationError, match="lost the pattern 2:4 .* in 1 of 1 kernels"):
        check_patterns(report.path(name), stored, wanted)


def test_a_kernel_that_is_stored_in_parts_is_not_judged(tmp_path):
    whole, part = np.zeros((1, 8, 4)), np.ones((1, 8, 2))
    check_patterns(tmp_path, judged([part, part]), judged([whole]))


def test_a_pattern_that_few_kernels_have_by_chance_is_not_held_to(tmp_path):
    two_of_four, dense = Kernel(16, frozenset({(2, 4)})), Kernel(64, frozenset())
    lost = [Kernel(16, frozenset()), dense]
    path = tmp_path / "saved_model"
    check_patterns(path, lost, [two_of_four, dense])
    with pytest.raises(VerificationError, match="in 2 of 5 kernels"):
        check_patterns(path, lost * 2, [two_of_four] * 5 + [dense])

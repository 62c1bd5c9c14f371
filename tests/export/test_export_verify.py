"""The comparison by hand, and that a check fails when and only when it should."""

import keras
import numpy as np
import pytest

from tfprune.errors import InvalidArgumentError, UnsupportedModelError, VerificationError
from tfprune.export.data import Samples
from tfprune.export.formats import Tolerance, resolve_formats
from tfprune.export.signature import signature_of
from tfprune.export.verify import Comparison, check, compare, keras_outputs

SAMPLES = Samples({"x": np.zeros((2, 4), "float32")}, "zeros")


def verdict(comparison, tolerance, name="tflite_int8"):
    (fmt,) = resolve_formats(name)
    check(fmt, "model_int8.tflite", comparison, tolerance, SAMPLES)


def test_the_difference_is_a_fraction_of_the_largest_value_of_the_output():
    expected = {"a": np.array([[0.0, -8.0]]), "b": np.array([100.0])}
    actual = {"a": np.array([[1.0, -8.0]]), "b": np.array([101.0])}
    comparison = compare(expected, actual)
    assert (comparison.max_difference, comparison.output) == (0.125, "a")


def test_an_output_that_is_zero_is_compared_in_absolute_values():
    assert compare({"a": np.zeros((1, 1))}, {"a": np.full((1, 1), 0.5)}).max_difference == 0.5


def test_integer_outputs_are_compared_by_the_fraction_that_differs():
    expected, actual = np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])
    comparison = compare({"a": expected}, {"a": actual})
    assert (comparison.max_difference, comparison.agreement) == (0.25, None)


def test_agreement_is_counted_over_all_and_over_clear_cut_inputs():
    # Largest value 1: clear-cut from a margin of 0.1 on. The second row is a toss-up.
    expected = np.array([[1.0, 0.0], [0.52, 0.48], [0.2, 0.8], [0.3, 0.7]])
    actual = np.array([[0.9, 0.1], [0.49, 0.51], [0.3, 0.7], [0.6, 0.4]])
    comparison = compare({"a": expected}, {"a": actual})
    assert comparison.agreement == 0.5
    assert comparison.clear_agreement == pytest.approx(2 / 3)
    assert comparison.clear_inputs == 3


def test_without_clear_cut_inputs_no_agreement_is_required():
    flat = np.array([[0.5, 0.51]])
    comparison = compare({"a": flat}, {"a": flat[:, ::-1]})
    assert (comparison.agreement, comparison.clear_agreement) == (0.0, None)
    verdict(comparison, Tolerance(0.1, 1.0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_always_fail(value):
    comparison = compare({"a": np.ones((1, 1))}, {"a": np.array([[value]])})
    with pytest.raises(VerificationError, match="differs by inf"):
        verdict(comparison, Tolerance(1e30))


def test_a_difference_above_the_tolerance_names_artifact_difference_and_remedy():
    message = (
        r"model_int8.tflite does not.*'y' differs by 0.2 .*2 examples of zeros; allowed is 0.1.*"
    )
    with pytest.raises(VerificationError, match=message + "More typical `representative_data`"):
        verdict(Comparison(0.2, "y"), Tolerance(0.1))
    verdict(Comparison(0.1, "y"), Tolerance(0.1))


def test_too_little_agreement_names_the_numbers():
    comparison = Comparison(0.0, "y", 0.5, 0.9, 30)
    with pytest.raises(VerificationError, match=r"only 90.0% of 30 clear-cut.* required is 95.0%"):
        verdict(comparison, Tolerance(0.1, 0.95))
    verdict(comparison, Tolerance(0.1, 0.9))
    verdict(comparison, Tolerance(0.1))


def test_other_outputs_or_shapes_are_an_error():
    one = np.zeros((1, 1))
    with pytest.raises(VerificationError, match=r"has the outputs \['b'\]; .* has \['a'\]"):
        compare({"a": one}, {"b": one})
    with pytest.raises(VerificationError, match=r"shape \(2,\); .* \(1, 1\)"):
        compare({"a": one}, {"a": np.zeros(2)})


@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_negative_tolerance_is_an_error(value):
    with pytest.raises(InvalidArgumentError, match="`max_difference` must be a number of at least"):
        Tolerance(value)


def test_an_agreement_in_percent_is_an_error():
    with pytest.raises(InvalidArgumentError, match=r"pass 0\.95 for 95 %\. Received: 95"):
        Tolerance(0.1, 95)


def test_a_model_that_computes_nan_is_named_as_the_culprit(dense):
    model = keras.models.clone_model(dense)
    model.layers[0].bias.assign(np.full(8, np.nan))
    with pytest.raises(VerificationError, match="The Keras model itself computes NaN"):
        keras_outputs(model, signature_of(model), SAMPLES)


def test_inputs_that_the_model_refuses_ask_for_better_ones(two_inputs):
    samples = Samples(
        {"values": np.zeros((2, 4), "float32"), "ids": np.full((2, 3), 99, "int32")}, "bad ids"
    )
    with pytest.raises(UnsupportedModelError, match="cannot be run on 2 examples of bad ids"):
        keras_outputs(two_inputs, signature_of(two_inputs), samples)


def test_nested_outputs_are_refused_with_the_way_around(dense):
    x = keras.Input((4,), name="x")
    y = dense(x)
    model = keras.Model(x, {"a": [y, y], "b": y})
    with pytest.raises(UnsupportedModelError, match=r"are nested: .*keras.tree.flatten"):
        keras_outputs(model, signature_of(model), SAMPLES)

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.datasets import load_digits

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.kernel_layout import KernelLayout
from tfprune.regularization import GroupLasso, regularize


def penalty(regularizer, values):
    return float(regularizer(keras.ops.convert_to_tensor(np.asarray(values, "float32"))))


def test_the_penalty_by_hand():
    kernel = [[3.0, 0.0, 1.0], [4.0, 0.0, 0.0]]
    assert penalty(GroupLasso(2.0), kernel) == pytest.approx(2 * 2**0.5 * (5 + 0 + 1))
    rows = 10**0.5 + 4
    assert penalty(GroupLasso(1.0, "inputs"), kernel) == pytest.approx(3**0.5 * rows)
    assert penalty(GroupLasso(1.0, 0), kernel) == pytest.approx(3**0.5 * rows)


@given(
    arrays.arrays(np.float32, (2, 2, 3, 4), elements=st.floats(-2, 2, width=32)),
    st.sets(st.integers(-4, 3), min_size=1),
)
def test_the_penalty_is_the_sum_of_the_groups_norms(kernel, axes):
    counted = sorted({axis % 4 for axis in axes})
    counted_first = np.moveaxis(kernel, counted, range(len(counted)))
    groups = counted_first.reshape(int(np.prod(counted_first.shape[: len(counted)])), -1)
    expected = sum(np.sqrt(g.size) * np.linalg.norm(g.astype(float)) for g in groups)
    assert penalty(GroupLasso(1.0, tuple(axes)), kernel) == pytest.approx(
        expected, rel=1e-5, abs=1e-5
    )


def test_one_weight_per_group_is_l1():
    kernel = np.array([[1.0, -2.0], [0.0, 3.0]])
    assert penalty(GroupLasso(0.5, (0, 1)), kernel) == pytest.approx(3.0)


def test_the_gradient_is_the_unit_vector_and_zero_at_zero():
    variable = tf.Variable([[3.0, 0.0, 1e-30], [4.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        value = GroupLasso(1.0)(variable)
    gradient = tape.gradient(value, variable).numpy()
    expected = 2**0.5 * np.array([[0.6, 0, 0], [0.8, 0, 0]])
    assert np.allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_small_and_large_16_bit_weights_count(dtype):
    regularizer = GroupLasso(1.0)
    small, large = (keras.ops.full((4, 1), v, dtype=dtype) for v in (1e-5, 1024.0))
    assert float(regularizer(small)) == pytest.approx(4e-5, rel=0.01)
    assert float(regularizer(large)) == pytest.approx(4096.0)


@pytest.mark.parametrize(
    ("layer", "shape", "outputs", "inputs"),
    [
        (lambda: keras.layers.Dense(6), (5,), (1,), (0,)),
        (lambda: keras.layers.Conv2D(6, 3), (7, 7, 4), (3,), (2,)),
        (lambda: keras.layers.Conv2DTranspose(6, 3), (7, 7, 4), (2,), (3,)),
        (lambda: keras.layers.EinsumDense("abc,cde->abde", (None, 2, 6)), (3, 5), (1, 2), (0,)),
    ],
)
def test_the_groups_lie_where_the_layer_has_them(layer, shape, outputs, inputs):
    model = keras.Sequential([keras.Input(shape), layer()])
    for groups, axes in (("outputs", outputs), ("inputs", inputs)):
        kernel = regularize(model, GroupLasso(0.1, groups)).layers[0].kernel
        assert kernel.regularizer == GroupLasso(0.1, axes)
        others = tuple(a for a in range(len(kernel.shape)) if a not in axes)
        values = np.asarray(kernel)
        size = np.prod([values.shape[a] for a in others])
        norms = np.sqrt(np.square(values).sum(axis=others))
        assert float(kernel.regularizer(kernel)) == pytest.approx(
            0.1 * size**0.5 * norms.sum(), rel=1e-5
        )


def test_it_is_an_argument_of_a_layer_and_saved(tmp_path):
    dense = keras.layers.Dense(3, kernel_regularizer=GroupLasso(0.25, (0,)))
    model = keras.Sequential([keras.Input((4,)), dense])
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert loaded.layers[0].kernel.regularizer == GroupLasso(0.25, (0,))
    assert np.array_equal(loaded.losses[0], model.losses[0])


def test_whole_units_go_to_zero_where_l2_only_makes_them_small():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")

    def train(regularizer):
        keras.utils.set_random_seed(0)
        # Not ReLU: units that are dead get no gradient, so any penalty takes them to zero.
        hidden = keras.layers.Dense(32, activation="tanh", name="hidden")
        model = keras.Sequential([keras.Input((64,)), hidden, keras.layers.Dense(10)])
        model = regularize(model, regularizer, include="hidden")
        rate = keras.optimizers.schedules.CosineDecay(0.02, 168)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        model.fit(x, y, batch_size=128, epochs=12, verbose=0)
        norms = np.linalg.norm(np.asarray(model.layers[0].kernel), axis=0)
        return model.evaluate(x, y, verbose=0)[1], np.sort(norms / norms.max())

    accuracy, norms = train(GroupLasso(5e-3))
    assert accuracy > 0.94
    assert norms[3] < 0.02
    accuracy, norms = train(keras.regularizers.L2(1e-2))
    assert accuracy > 0.94
    assert norms[0] > 0.2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-0.1,), InvalidArgumentError, "`strength` must be finite and at least 0.*-0.1"),
        ((float("nan"),), InvalidArgumentError, "must be finite"),
        (("0.1",), InvalidTypeError, "must be a number"),
        ((0.1, "rows"), InvalidArgumentError, "'outputs', 'inputs', or the axes.*'rows'"),
        ((0.1, ()), InvalidArgumentError, "the axes that count the groups"),
        ((0.1, (0.5,)), InvalidArgumentError, "the axes that count the groups"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        GroupLasso(*arguments)


def test_axes_that_a_weight_does_not_have_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"shape \(3, 4\) has no groups \(2,\)"):
        GroupLasso(0.1, 2).for_layout(KernelLayout.default((3, 4)))
    with pytest.raises(InvalidArgumentError, match=r"shape \(3,\) has no groups 'inputs'"):
        GroupLasso(0.1, "inputs")(np.ones(3, "float32"))

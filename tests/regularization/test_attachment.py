import re

import keras
import numpy as np
import pytest

import tfprune
from tests.layer_zoo import ZOO, OwnBlock
from tfprune.errors import InvalidArgumentError, InvalidTypeError, UnsupportedModelError
from tfprune.prunable import find_candidates
from tfprune.regularization import ClipRange, GroupLasso, constrain, regularize

layers = keras.layers
L1, L2 = keras.regularizers.L1, keras.regularizers.L2
KERNELS = {name: example for name, example in ZOO.items() if example.kernels}
# A user's own class has no argument for it.
WITH_ARGUMENT = {name: example for name, example in KERNELS.items() if "user" not in name}


def kernels(model):
    return [c.variable for c in find_candidates(model) if c.reason is None]


def total(model):
    return float(sum(model.losses))


def absolute(variables):
    return sum(float(np.abs(np.asarray(v, "float32")).sum()) for v in variables)


def saved_and_loaded(model, folder):
    model.save(folder / "net.keras")
    return keras.models.load_model(folder / "net.keras")


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(4, name="first")
        self.last = layers.Dense(2, name="last")

    def call(self, x):
        return self.last(self.first(x))


@pytest.mark.parametrize("example", WITH_ARGUMENT.values(), ids=WITH_ARGUMENT)
def test_what_a_kernel_has_is_saved_and_pruned_with_it(example, tmp_path):
    model = example.model()
    given = constrain(regularize(model, L1(0.5)), ClipRange(-0.1, 0.1))
    assert total(given) == pytest.approx(0.5 * absolute(kernels(model)), rel=1e-5)
    assert not model.losses
    pruned = tfprune.prune(given, "keep")
    for copy in (given, saved_and_loaded(pruned, tmp_path), tfprune.strip(pruned)):
        assert total(copy) == total(given)
        assert len(kernels(copy)) == example.kernels
        for kernel in kernels(copy):
            assert np.array_equal(kernel.constraint(kernel), np.clip(kernel, -0.1, 0.1))


def test_a_users_own_regularizer_counts_too(tmp_path):
    dense = layers.Dense(2, kernel_initializer="ones", kernel_regularizer=L2(0.25))
    model = keras.Sequential([keras.Input((3,)), dense])
    both = regularize(model, L1(0.5))
    assert total(model) == 1.5
    assert total(both) == 4.5
    assert total(saved_and_loaded(both, tmp_path)) == 4.5
    assert total(regularize(both, L1(1.0))) == 10.5


def test_a_users_own_constraint_holds_too(tmp_path):
    dense = layers.Dense(2, kernel_constraint="non_neg")
    model = keras.Sequential([keras.Input((2,)), dense])
    kernel = np.array([[-3.0, 0.25], [5.0, -0.5]], "float32")
    for added, expected in (
        (ClipRange(-1, 1), [[0, 0.25], [1, 0]]),
        ("unit_norm", [[0, 1], [1, 0]]),
    ):
        given = constrain(model, added)
        for copy in (given, saved_and_loaded(given, tmp_path)):
            assert np.allclose(copy.layers[0].kernel.constraint(kernel), expected)


def test_the_loss_of_a_compiled_step_is_the_sum(dense_net, dense_data):
    x, y = dense_data
    loss = "sparse_categorical_crossentropy"
    dense_net.compile("sgd", loss)
    plain = dense_net.evaluate(x, y, verbose=0)
    model = regularize(dense_net, GroupLasso(0.1))
    model.compile("sgd", loss)
    penalty = 0.1 * sum(
        np.sqrt(k.shape[0]) * np.linalg.norm(np.asarray(k), axis=0).sum() for k in kernels(model)
    )
    assert model.evaluate(x, y, verbose=0) == pytest.approx(plain + penalty, rel=1e-5)


def test_regularize_in_place_reaches_a_step_that_is_compiled_already(dense_net, dense_data):
    dense_net.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    before = dense_net.fit(*dense_data, verbose=0).history["loss"][0]
    plain = dense_net.evaluate(*dense_data, verbose=0)
    assert regularize(dense_net, L1(1.0), copy=False) is dense_net
    penalty = absolute(kernels(dense_net))
    assert dense_net.evaluate(*dense_data, verbose=0) == pytest.approx(plain + penalty, rel=1e-5)
    after = dense_net.fit(*dense_data, verbose=0).history["loss"][0]
    assert after == pytest.approx(before + penalty, rel=1e-5)


def test_pruned_and_shared_and_nested_layers_are_copied(conv_net):
    pruned = tfprune.prune(conv_net, 0.5, "snip", data=(np.ones((2, 8, 8, 3)), np.ones((2, 3))))
    tfprune.Pruner(pruned).weights[0].mask.assign(np.zeros((3, 3, 3, 8), bool))
    model = regularize(pruned, L1(1.0))
    assert tfprune.Pruner(model).sparsities() == tfprune.Pruner(pruned).sparsities()
    assert tfprune.Pruner(model).runs[0].data is tfprune.Pruner(pruned).runs[0].data
    assert total(model) == pytest.approx(absolute(kernels(conv_net)), rel=1e-5)
    x = np.ones((2, 8, 8, 3), "float32")
    assert np.array_equal(model(x), pruned(x))


@pytest.mark.parametrize("first", [constrain, tfprune.prune])
def test_constraint_and_mask_hold_together_in_either_order(dense_net, dense_data, first):
    def prune(model):
        return tfprune.prune(model, 0.5)

    def clip(model):
        return constrain(model, ClipRange(0.01, 0.1))

    model = prune(clip(dense_net)) if first is constrain else clip(prune(dense_net))
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    model.fit(*dense_data, callbacks=[tfprune.callbacks.UpdateMasks()], verbose=0)
    for weight in tfprune.Pruner(model).weights:
        values, alive = weight.values(), weight.alive()
        assert alive.sum() == values.size // 2
        assert (values[~alive] == 0).all()
        assert ((values[alive] >= np.float32(0.01)) & (values[alive] <= np.float32(0.1))).all()


def test_kerass_max_norm_without_an_axis_is_the_ball_around_the_whole_weight(dense_net, dense_data):
    assert all(np.linalg.norm(kernel) > 1 for kernel in kernels(dense_net))
    model = constrain(dense_net, keras.constraints.MaxNorm(0.5, axis=None))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(*dense_data, verbose=0)
    assert [np.linalg.norm(kernel) for kernel in kernels(model)] == pytest.approx(
        [0.5] * 2, rel=1e-3
    )


def test_selectors_choose(dense_net):
    only = regularize(dense_net, L1(1.0), include="d1")
    assert total(only) == pytest.approx(absolute([dense_net.layers[0].kernel]))
    assert total(regularize(dense_net, L1(1.0), exclude="d2")) == total(only)


def test_the_scales_of_batch_normalization_are_reached_by_their_path(conv_net, tmp_path):
    slim = regularize(conv_net, L1(0.5), include=re.compile("gamma$"))
    assert total(slim) == 4.0
    assert total(saved_and_loaded(slim, tmp_path)) == 4.0


def test_depthwise_kernels_are_reached_by_name(tmp_path):
    shape = keras.Input((7, 7, 4))
    model = keras.Sequential([shape, layers.DepthwiseConv2D(3, name="depthwise")])
    given = regularize(model, L1(1.0), include="depthwise")
    assert total(given) == pytest.approx(absolute([model.layers[0].kernel]), rel=1e-5)
    assert total(saved_and_loaded(given, tmp_path)) == total(given)


def test_a_penalty_that_no_config_holds_is_told():
    model = keras.Sequential([keras.Input((5,)), OwnBlock(name="block")])
    with pytest.warns(
        UserWarning, match=r"block/first/kernel, .*block/second/kernel, but no layer"
    ):
        given = regularize(model, L1(1.0))
    assert total(given) == pytest.approx(absolute(kernels(model)), rel=1e-5)


def test_attention_kernels_with_penalties_of_their_own_are_told():
    model = ZOO["MultiHeadAttention"].model()
    with pytest.warns(UserWarning, match="attention/query/kernel, .*attention_output/kernel"):
        given = regularize(model, GroupLasso(0.1))
    assert {k.regularizer.groups for k in kernels(given)} == {(1, 2), (2,)}


def test_a_subclassed_model_is_worked_on_in_place():
    net = Net()
    net(np.ones((1, 3)))
    with pytest.raises(UnsupportedModelError, match="`copy=False` to work on it in place"):
        regularize(net, L1(1.0))
    assert not net.losses
    assert regularize(net, L1(1.0), copy=False) is net
    assert total(net) == pytest.approx(absolute(kernels(net)), rel=1e-5)
    constrain(net, "non_neg", copy=False)
    net.compile("sgd", "mse")
    net.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    assert all(np.min(kernel) >= 0 for kernel in kernels(net))


def test_a_pruner_on_a_subclassed_model_keeps_both():
    net = Net()
    net(np.ones((1, 3)))
    pruner = tfprune.Pruner(net, 0.5)
    regularize(net, L1(1.0), copy=False)
    constrain(net, ClipRange(-0.1, 0.1), copy=False)
    pruner.step()
    assert pruner.sparsity == 0.5
    net = pruner.strip()
    assert net.first.kernel.constraint == ClipRange(-0.1, 0.1)
    assert total(net) == pytest.approx(absolute(kernels(net)), rel=1e-5)


def test_tied_weights_are_not_untied():
    first, second = layers.Dense(4, name="first"), layers.Dense(4, name="second")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, second(first(inputs)))
    second._tracker.unlock()
    second._kernel = first.kernel
    second._trainable_variables[0] = first.kernel
    with pytest.raises(UnsupportedModelError, match="untie"):
        regularize(model, L1(1.0))
    assert total(regularize(model, L1(1.0), copy=False)) == absolute([first.kernel])


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16"])
def test_both_work_in_a_step_compiled_by_xla_under_every_policy(policy):
    dense = layers.Dense(8, dtype=policy, kernel_constraint="non_neg")
    model = keras.Sequential([keras.Input((4,)), dense])
    model = constrain(regularize(model, GroupLasso(0.1)), ClipRange(-0.25, 0.25))
    model.compile("sgd", "mse", jit_compile=True)
    history = model.fit(np.ones((16, 4)), np.zeros((16, 8)), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    kernel = np.asarray(keras.ops.cast(model.layers[0].kernel, "float32"))
    assert kernel.min() >= 0
    assert kernel.max() <= 0.25


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda net: regularize(net, L1(0.1), include="d9"), InvalidArgumentError, "'d9'"),
        (lambda net: regularize(net, "l9"), InvalidArgumentError, "`regularizer` must be a Keras"),
        (lambda net: regularize(net, None), InvalidArgumentError, "`regularizer` must be a Keras"),
        (lambda net: constrain(net, 3), InvalidArgumentError, "`constraint` must be a Keras"),
        (lambda net: constrain(3, "non_neg"), InvalidTypeError, "Expected a Keras model"),
        (
            lambda net: regularize(keras.Sequential([layers.Dense(3)]), L1(0.1)),
            UnsupportedModelError,
            "not built",
        ),
        (lambda net: ClipRange(1, -1), InvalidArgumentError, "`low` must not be above `high`"),
        (lambda net: ClipRange(float("nan"), 1), InvalidArgumentError, "`low` must not be above"),
    ],
)
def test_bad_arguments_are_refused(dense_net, call, error, message):
    with pytest.raises(error, match=message):
        call(dense_net)

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfprune
from tests.layer_zoo import Reader
from tfprune.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    NotPrunedError,
    UnsupportedModelError,
)
from tfprune.masks import kept_count
from tfprune.patterns import Block
from tfprune.schedules import ConstantSparsity
from tfprune.wrappers import Pruned

layers = keras.layers
IMAGES = np.random.default_rng(0).random((4, 8, 8, 3), dtype=np.float32)


def zeros(layer):
    return int(np.sum(keras.ops.convert_to_numpy(layer.kernel) == 0))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(8)
        self.second = layers.Dense(3)

    def call(self, x):
        return self.second(self.first(x))


def test_outputs_are_bit_equal_before_the_first_update(conv_net):
    pruned = tfprune.prune(conv_net, 0.5)
    assert np.array_equal(conv_net(IMAGES), pruned(IMAGES))
    assert not pruned.compiled
    assert not tfprune.is_pruned(conv_net)


def test_only_layers_with_prunable_weights_are_wrapped(conv_net):
    pruned = tfprune.prune(conv_net, 0.5)
    wrapped = [p.name for p in pruned._flatten_layers() if isinstance(p, Pruned)]
    assert sorted(wrapped) == ["conv", "h1", "h2", "separable", "shared"]


def test_pruning_the_same_model_twice_gives_independent_models(dense_net):
    first, second = tfprune.prune(dense_net, 0.5), tfprune.prune(dense_net, 0.75)
    tfprune.Pruner(first).step()
    assert tfprune.Pruner(first).sparsity == 0.5
    assert tfprune.Pruner(second).sparsity == 0.0
    assert zeros(dense_net.layers[0]) == 0


def test_the_plan_of_a_pruned_model_is_replaced_and_its_masks_kept(conv_net):
    pruned = tfprune.prune(conv_net, 0.5)
    tfprune.Pruner(pruned).step()
    again = tfprune.prune(pruned, ConstantSparsity(0.8), allocation="global")
    pruner = tfprune.Pruner(again)
    assert pruner.sparsity == pytest.approx(0.5, abs=1e-3)
    assert not any(
        isinstance(p.layer, Pruned) for p in again._flatten_layers() if hasattr(p, "layer")
    )
    before = [weight.alive() for weight in pruner.weights]
    pruner.step()
    assert pruner.sparsity == pytest.approx(0.8, abs=1e-3)
    assert not any((w.alive() & ~b).any() for w, b in zip(pruner.weights, before, strict=True))


def test_keep_holds_the_zeros_that_are_there(dense_net, dense_data):
    sparse = tfprune.prune_once(dense_net, 0.75)
    kept = tfprune.prune(sparse, schedule="keep")
    kept.compile("adam", "sparse_categorical_crossentropy")
    kept.fit(*dense_data, epochs=2, verbose=0, callbacks=[tfprune.callbacks.UpdateMasks()])
    assert [zeros(layer) for layer in kept.layers] == [zeros(layer) for layer in sparse.layers]
    assert zeros(kept.layers[0]) == 96


def test_strip_gives_plain_layers_with_the_users_constraints(conv_net):
    plain = tfprune.strip(tfprune.prune(conv_net, 0.5))
    assert [type(layer) for layer in plain.layers] == [type(layer) for layer in conv_net.layers]
    assert isinstance(plain.get_layer("shared").kernel.constraint, keras.constraints.MaxNorm)
    assert plain.get_layer("conv").kernel.constraint is None
    assert [w.path for w in plain.weights] == [w.path for w in conv_net.weights]


def test_strip_in_the_middle_of_an_epoch_gives_the_masked_weights(dense_net, dense_data):
    pruned = tfprune.prune(dense_net, 0.5)
    pruned.compile("adam", "sparse_categorical_crossentropy")
    seen = []

    class StripNow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([zeros(layer) for layer in tfprune.strip(self.model).layers])

    pruned.fit(
        *dense_data,
        batch_size=10,
        verbose=0,
        callbacks=[StripNow(), tfprune.callbacks.UpdateMasks()],
    )
    assert seen == [[64, 24]] * 4


def test_strip_applies_masks_that_the_weights_do_not_have_yet(dense_net):
    pruned = tfprune.prune(dense_net, 0.5)
    mask = pruned.layers[0].weight_masks[0]
    mask.assign(np.arange(128).reshape(8, 16) % 4 == 0)
    assert zeros(tfprune.strip(pruned).layers[0]) == 96


@given(
    sparsity=st.floats(0, 0.99),
    allocation=st.sampled_from(["uniform", "global"]),
    criterion=st.sampled_from(["magnitude", "random"]),
)
def test_one_shot_sparsity_is_exact_to_one_weight(sparsity, allocation, criterion):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(9), layers.Dense(5)])
    sparse = tfprune.prune_once(model, sparsity, criterion, allocation=allocation)
    kept = [72 - zeros(sparse.layers[0]), 45 - zeros(sparse.layers[1])]
    if allocation == "uniform":
        assert kept == [kept_count(72, sparsity), kept_count(45, sparsity)]
    else:
        assert sum(kept) == max(kept_count(117, sparsity), 2)


def test_one_shot_gives_a_plain_model_and_leaves_the_given_one(conv_net):
    sparse = tfprune.prune_once(conv_net, 0.5, pattern="2:4")
    kernel = keras.ops.convert_to_numpy(sparse.get_layer("shared").kernel)
    assert ((kernel.reshape(2, 4, 8) != 0).sum(axis=1) == 2).all()
    assert zeros(sparse.get_layer("conv")) == 0, "three input channels fill no group of four"
    assert not tfprune.is_pruned(sparse)
    assert zeros(conv_net.get_layer("shared")) == 0


def test_one_shot_takes_a_pruned_model(dense_net):
    pruned = tfprune.prune(dense_net, 0.5)
    tfprune.Pruner(pruned).step()
    assert zeros(tfprune.prune_once(pruned, 0.75).layers[0]) == 96


def test_blocks_reach_their_sparsity(dense_net):
    sparse = tfprune.prune_once(dense_net, 0.5, pattern=Block((1, 4)), include="d1")
    kernel = keras.ops.convert_to_numpy(sparse.layers[0].kernel).reshape(32, 4)
    assert ((kernel != 0).sum(axis=1) % 4 == 0).all()
    assert zeros(sparse.layers[0]) == 64


def test_a_bias_is_pruned_when_it_is_named(dense_net):
    dense_net.layers[0].bias.assign(np.arange(1, 17))
    path = dense_net.layers[0].bias.path
    sparse = tfprune.prune_once(dense_net, 0.5, include=path)
    assert sparse.layers[0].bias.numpy().tolist() == [0] * 8 + list(range(9, 17))
    assert zeros(sparse.layers[0]) == 0


def test_a_layer_and_a_list_of_layers_can_be_pruned():
    single = tfprune.prune(layers.Dense(4), 0.5)
    assert isinstance(single, Pruned)
    first, second = tfprune.prune([layers.Dense(4, name="a"), layers.Dense(2, name="b")], 0.5)
    model = keras.Sequential([keras.Input((8,)), first, layers.ReLU(), second])
    pruner = tfprune.Pruner(model)
    pruner.step()
    assert pruner.sparsity == 0.5
    assert [type(layer).__name__ for layer in tfprune.strip([first, second])] == ["Dense"] * 2
    assert [layer.name for layer in tfprune.strip(model).layers] == ["a", "re_lu", "b"]


def test_a_built_layer_is_copied_with_its_weights():
    dense = layers.Dense(4)
    dense.build((None, 8))
    pruned = tfprune.prune(dense, 0.5)
    assert np.array_equal(pruned.kernel, dense.kernel)
    assert pruned.kernel is not dense.kernel


def test_a_pruned_model_inside_a_larger_one_is_found(dense_net, dense_data):
    pruned = tfprune.prune(dense_net, 0.5)

    class Trainer(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def call(self, x):
            return self.inner(x)

    for outer in (
        Trainer(pruned),
        keras.Sequential([keras.Input((8,)), layers.Rescaling(1.0), pruned]),
        keras.Model(pruned.input, layers.Softmax()(pruned.output)),
    ):
        outer.compile("sgd", "sparse_categorical_crossentropy")
        history = outer.fit(*dense_data, verbose=0, callbacks=[tfprune.callbacks.UpdateMasks()])
        assert history.history["sparsity"] == [0.5]
    assert zeros(pruned.layers[0]) == 64


def test_a_distiller_trains_a_pruned_student(dense_net, dense_data):
    student = tfprune.prune(dense_net, 0.5)
    distiller = keras.distillation.Distiller(
        teacher=keras.models.clone_model(dense_net),
        student=student,
        distillation_losses=keras.distillation.LogitsDistillation(),
    )
    distiller.compile("adam", "sparse_categorical_crossentropy")
    distiller.fit(*dense_data, verbose=0, callbacks=[tfprune.callbacks.UpdateMasks()])
    assert zeros(student.layers[0]) == 64


def test_two_plans_in_one_model_are_driven_side_by_side(dense_data):
    first = tfprune.prune(layers.Dense(8, name="a"), 0.25)
    second = tfprune.prune(layers.Dense(4, name="b"), ConstantSparsity(0.75, begin_step=3))
    model = keras.Sequential([keras.Input((8,)), first, second])
    pruner = tfprune.Pruner(model)
    seen = []
    for _ in range(3):
        pruner.step()
        seen.append(list(pruner.sparsities().values()))
    assert seen == [[0.25, 0.0], [0.25, 0.0], [0.25, 0.75]]


def test_shared_layers_count_once(conv_net):
    assert len(tfprune.Pruner(tfprune.prune(conv_net, 0.5)).weights) == 5


def test_tied_weights_have_one_mask_and_are_not_untied_silently():
    inputs = keras.Input((4,))
    dense = layers.Dense(3, name="dense")
    model = keras.Model(inputs, Reader(dense)(dense(inputs)))
    with pytest.raises(UnsupportedModelError, match="shared between layers: dense/kernel"):
        tfprune.prune(model, 0.5)
    pruned = tfprune.prune(model, 0.5, copy=False)
    pruner = tfprune.Pruner(pruned)
    assert len(pruner.weights) == 1
    pruner.step()
    assert zeros(dense) == 6


def test_without_copying_the_given_weights_are_pruned(dense_net):
    pruned = tfprune.prune(dense_net, 0.5, copy=False)
    tfprune.Pruner(pruned).step()
    assert zeros(dense_net.layers[0]) == 64
    again = tfprune.prune(pruned, 0.75, copy=False)
    tfprune.Pruner(again).step()
    assert zeros(dense_net.layers[0]) == 96


def test_a_frozen_layer_is_pruned_only_when_named(dense_net):
    dense_net.layers[0].trainable = False
    assert zeros(tfprune.prune_once(dense_net, 0.5).layers[0]) == 0
    assert zeros(tfprune.prune_once(dense_net, 0.5, include="d1").layers[0]) == 64


def test_unprunable_layers_pass_through():
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.GroupNormalization(3)(layers.PReLU()(layers.Conv2D(6, 3)(x)))
    model = keras.Model(inputs, layers.Softmax()(layers.GlobalMaxPooling2D()(keras.ops.relu(x))))
    pruned = tfprune.prune(model, 0.5)
    assert np.array_equal(model(IMAGES), pruned(IMAGES))


@pytest.mark.parametrize(
    "call",
    [
        lambda model: tfprune.prune(model, 0.5),
        lambda model: tfprune.prune_once(model, 0.5),
    ],
)
def test_subclassed_models_are_referred_to_the_pruner(call):
    model = Subclassed()
    model(np.ones((1, 4)))
    with pytest.raises(UnsupportedModelError, match=r"tfprune.Pruner\(model, schedule="):
        call(model)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"schedule": 80}, InvalidArgumentError, "pass 0.8 for 80 % zeros"),
        ({"schedule": 0.5, "criterion": "nope"}, InvalidArgumentError, "Unknown criterion 'nope'"),
        ({"schedule": 0.5, "pattern": "nope"}, InvalidArgumentError, "Unknown pattern 'nope'"),
        ({"schedule": 0.8, "pattern": "2:4"}, InvalidArgumentError, "must end there"),
        ({"schedule": 0.5, "allocation": 3}, InvalidTypeError, "`allocation` must be one of"),
        ({"schedule": 0.5, "include": "nope"}, InvalidArgumentError, "include='nope'"),
        ({"schedule": 0.5, "exclude": ["d1", "x"]}, InvalidArgumentError, "exclude='x'"),
    ],
)
def test_bad_arguments_are_refused(dense_net, arguments, error, message):
    with pytest.raises(error, match=message):
        tfprune.prune(dense_net, **arguments)


def test_weights_that_are_not_finite_are_refused_by_name(dense_net):
    kernel = dense_net.get_layer("d2").kernel
    kernel.assign(kernel * np.nan)
    for call in (tfprune.prune, tfprune.prune_once):
        with pytest.raises(InvalidArgumentError, match=r"d2/kernel.*diverged"):
            call(dense_net, 0.5)


def test_an_unbuilt_model_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"not built yet.*Input"):
        tfprune.prune(keras.Sequential([layers.Dense(3)]), 0.5)


def test_what_is_not_a_model_is_refused():
    with pytest.raises(InvalidTypeError, match="Expected a Keras model or layer"):
        tfprune.prune("resnet.keras", 0.5)


def test_a_model_without_kernels_is_refused():
    model = keras.Sequential([keras.Input((3,)), layers.ReLU()])
    with pytest.raises(InvalidArgumentError, match="nothing to prune"):
        tfprune.prune(model, 0.5)


def test_a_plain_model_has_nothing_to_strip(dense_net):
    with pytest.raises(NotPrunedError, match="nothing to strip"):
        tfprune.strip(dense_net)


def test_selecting_in_an_unbuilt_layer_is_refused():
    with pytest.raises(UnsupportedModelError, match="no weights yet"):
        tfprune.prune(layers.Dense(3), 0.5, exclude="dense")

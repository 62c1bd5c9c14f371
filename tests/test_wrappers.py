import keras
import numpy as np
import pytest

import tfprune
from tests.layer_zoo import ZOO
from tfprune.wrappers import MaskConstraint, Pruned

layers = keras.layers
PRUNABLE = {name: example for name, example in ZOO.items() if example.kernels}


def wrap(layer):
    """Return a copy of the layer with masks that nothing has to drive."""
    return tfprune.prune(layer, "keep")


@pytest.mark.parametrize("example", PRUNABLE.values(), ids=PRUNABLE)
def test_a_wrapped_layer_is_invisible(example):
    plain = example.model()
    pruned = tfprune.prune(plain, 0.5)
    layer, wrapper = plain.layers[-1], pruned.layers[-1]
    assert isinstance(wrapper, Pruned)
    x = example.batch()
    for training in (False, True):
        assert np.array_equal(plain(x, training=training), pruned(x, training=training))
    assert wrapper.name == layer.name
    assert wrapper.dtype_policy == layer.dtype_policy
    assert wrapper.supports_masking == layer.supports_masking
    assert pruned.output_shape == plain.output_shape
    state = {mask.path for mask in wrapper.weight_masks}
    paths = {w.path for w in pruned.weights} - state
    assert {path for path in paths if "/pruning_" not in path} == {w.path for w in plain.weights}


@pytest.mark.parametrize("example", PRUNABLE.values(), ids=PRUNABLE)
def test_every_kernel_reaches_its_sparsity_and_keeps_it_in_training(example):
    pruned = tfprune.prune(example.model(), 0.5)
    pruned.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    x = example.batch()
    y = np.ones_like(pruned(x))
    pruned.fit(x, y, callbacks=[tfprune.callbacks.UpdateMasks()], epochs=2, verbose=0)
    (wrapper,) = [layer for layer in pruned.layers if isinstance(layer, Pruned)]
    assert len(wrapper.prunable_weights) == example.kernels
    for weight, mask in zip(wrapper.prunable_weights, wrapper.weight_masks, strict=True):
        values, kept = keras.ops.convert_to_numpy(weight), keras.ops.convert_to_numpy(mask)
        assert kept.sum() == tfprune.masks.kept_count(values.size, 0.5)
        assert (values[~kept] == 0).all()
        assert not np.signbit(values[~kept]).any(), "-0.0 compresses badly"
    plain = tfprune.strip(pruned)
    assert np.array_equal(plain(x), pruned(x))
    assert not tfprune.is_pruned(plain)


def test_the_masks_take_one_byte_per_weight_and_are_attributes():
    wrapper = wrap(layers.Bidirectional(layers.LSTM(3)))
    wrapper(np.ones((1, 4, 5), "float32"))
    assert [mask.dtype for mask in wrapper.weight_masks] == ["bool"] * 4
    assert [getattr(wrapper, f"weight_mask_{i}") for i in range(4)] == wrapper.weight_masks
    assert [m.shape for m in wrapper.weight_masks] == [w.shape for w in wrapper.prunable_weights]


def test_embedding_masks_reach_the_next_layer():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, layers.LSTM(3)(x))
    tokens = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 0, 0, 0, 0]])
    pruned = tfprune.prune(model, 0.5)
    assert np.array_equal(model(tokens), pruned(tokens))
    unmasked = keras.Model(inputs, layers.LSTM(3)(layers.Embedding(10, 4)(inputs)))
    unmasked.set_weights(model.get_weights())
    assert not np.allclose(model(tokens), unmasked(tokens))


def test_extra_call_arguments_pass_through():
    sequence = keras.Input((4, 5))
    state = [keras.Input((3,)), keras.Input((3,))]
    outputs = layers.LSTM(3, return_state=True, name="lstm")(sequence, initial_state=state)
    attended = layers.MultiHeadAttention(2, 4, name="mha")(
        sequence, sequence, use_causal_mask=True, return_attention_scores=True
    )
    model = keras.Model([sequence, *state], [*outputs, *attended])
    pruned = tfprune.prune(model, 0.5)
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(2, 4, 5)), rng.normal(size=(2, 3)), rng.normal(size=(2, 3))]
    for expected, received in zip(model(data), pruned(data), strict=True):
        assert np.array_equal(expected, received)
    mask = np.array([[[True, False, True, True]] * 4] * 2)
    layer, wrapper = model.get_layer("mha"), pruned.get_layer("mha")
    x = data[0].astype("float32")
    assert np.array_equal(layer(x, x, attention_mask=mask), wrapper(x, x, attention_mask=mask))


def test_training_behaviour_passes_through():
    class Noisy(layers.Dense):
        def call(self, inputs, training=False):
            return super().call(inputs) + (100.0 if training else 0.0)

    wrapper = wrap(Noisy(2))
    x = np.zeros((1, 3), "float32")
    assert float(keras.ops.max(wrapper(x, training=True))) == 100.0
    assert float(keras.ops.max(wrapper(x))) == 0.0


def test_attributes_of_the_layer_are_the_wrappers():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d1", activation="relu")])
    layer = tfprune.prune(model, 0.5).get_layer("d1")
    assert layer.units == 2
    assert layer.kernel is layer.layer.kernel
    assert layer.activation is keras.activations.relu
    with pytest.raises(AttributeError, match="filters"):
        _ = layer.filters


def test_the_users_constraint_holds_within_the_mask():
    unit = keras.constraints.UnitNorm(axis=0)
    wrapper = wrap(layers.Dense(4, kernel_constraint=unit))
    wrapper.build((8,))
    mask = wrapper.weight_masks[0]
    mask.assign(np.random.default_rng(0).random((8, 4)) > 0.5)
    constrained = keras.ops.convert_to_numpy(wrapper.kernel.constraint(wrapper.kernel))
    assert (constrained[~keras.ops.convert_to_numpy(mask)] == 0).all()
    assert np.allclose(np.linalg.norm(constrained, axis=0), 1, atol=1e-5)


def test_a_nan_does_not_survive_under_the_mask():
    wrapper = wrap(layers.Dense(1))
    wrapper.build((2,))
    wrapper.weight_masks[0].assign([[False], [True]])
    wrapper.kernel.assign([[np.nan], [1.0]])
    assert keras.ops.convert_to_numpy(wrapper.kernel.constraint(wrapper.kernel)).tolist() == [
        [0],
        [1],
    ]


def test_the_wrapped_layer_freezes_with_the_wrapper():
    wrapper = wrap(layers.Dense(2))
    wrapper.build((3,))
    wrapper.trainable = False
    assert not wrapper.layer.trainable
    assert wrapper.trainable_variables == []
    wrapper.trainable = True
    assert len(wrapper.trainable_variables) == 2


def test_regularization_losses_are_counted_once():
    regularizer = keras.regularizers.L2(0.1)
    layer = layers.Dense(2, kernel_regularizer=regularizer, activity_regularizer=regularizer)
    model = keras.Sequential([keras.Input((3,)), layer])
    pruned = tfprune.prune(model, 0.5)
    x = np.ones((4, 3), "float32")
    model(x)
    pruned(x)
    assert [float(v) for v in model.losses] == [float(v) for v in pruned.losses]


def test_an_unbuilt_layer_is_built_by_its_first_call():
    wrapper = Pruned(layers.MultiHeadAttention(2, 4))
    x = np.ones((1, 3, 6), "float32")
    wrapper(x, x)
    assert len(wrapper.weight_masks) == 4
    assert isinstance(wrapper.prunable_weights[0].constraint, MaskConstraint)


def test_the_config_round_trips_with_the_plan():
    wrapper = wrap(layers.Dense(2, name="dense"))
    wrapper.build((3,))
    config = wrapper.get_config()
    again = Pruned.from_config(config)
    assert again.plan == wrapper.plan
    assert again.get_config()["plan_id"] == wrapper.plan.id
    assert config == wrapper.get_config(), "the caller's config was changed"


def test_training_without_a_driver_warns(dense_net, dense_data):
    pruned = tfprune.prune(dense_net, 0.5)
    pruned.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.warns(UserWarning, match="nothing drives it.*UpdateMasks"):
        pruned.fit(*dense_data, verbose=0)


def test_training_to_keep_zeros_needs_no_driver(dense_net, dense_data):
    kept = tfprune.prune(tfprune.prune_once(dense_net, 0.5), "keep")
    kept.compile("sgd", "sparse_categorical_crossentropy")
    kept.fit(*dense_data, verbose=0)
    assert np.mean(keras.ops.convert_to_numpy(kept.layers[0].kernel) == 0) == 0.5

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfprune
from tfprune.errors import InvalidArgumentError, InvalidTypeError, UnsupportedModelError
from tfprune.masks import kept_count
from tfprune.methods import lottery_ticket

layers = keras.layers


def line(values, bias=0.5):
    """Return a model of one Dense layer `d` with a kernel of one column."""
    model = keras.Sequential([keras.Input((len(values),)), layers.Dense(1, name="d")])
    model.set_weights([np.array(values)[:, np.newaxis], np.array([bias])])
    return model


def learns(*kernels):
    """Return a `train` that sets the kernel to one list of values in each round."""
    rounds = iter(kernels)

    def train(model, callbacks):
        model.layers[0].kernel.assign(np.array(next(rounds))[:, np.newaxis])
        model.layers[0].bias.assign([9.0])

    return train


def kernel(model):
    return keras.ops.convert_to_numpy(model.get_layer("d").kernel)[:, 0].tolist()


def numbers(variable):
    return keras.ops.convert_to_numpy(variable)


@pytest.fixture
def net():
    """A net with batch normalization and dropout."""
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, name="d1"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.3, seed=1, name="dropout"),
            layers.Dense(3, name="d2"),
        ]
    )


@pytest.fixture
def train(dense_data):
    """A `train` of two epochs of two steps."""

    def train(model, callbacks):
        # Eagerly: for so few steps, tracing would take most of the time.
        model.compile(keras.optimizers.Adam(0.01), _loss(), run_eagerly=True)
        model.fit(
            *dense_data, batch_size=20, epochs=2, shuffle=False, verbose=0, callbacks=callbacks
        )

    return train


def _loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_the_largest_trained_weights_are_kept_at_their_initial_values():
    ticket = lottery_ticket(line([10, 20, 30, 40]), learns([4, 1, -3, 2]), 0.5, rounds=1)
    assert kernel(ticket) == [10, 0, 30, 0]
    assert ticket.layers[0].bias.numpy() == [0.5]
    assert not ticket.compiled


def test_pruned_weights_never_return():
    # The second training makes the weights largest that the first has pruned.
    train = learns([4, 1, 3, 2], [0.1, 9, 0.2, 9])
    assert kernel(lottery_ticket(line([10, 20, 30, 40]), train, 0.75, rounds=2)) == [0, 0, 30, 0]


def test_the_density_shrinks_by_the_same_factor_in_each_round(dense_net):
    seen = []

    def train(model, callbacks):
        seen.append(tfprune.Pruner(model).sparsity)
        assert not callbacks
        assert not model.compiled
        for weight in model.trainable_variables:
            weight.assign_add(keras.random.normal(weight.shape))

    ticket = lottery_ticket(dense_net, train, 0.875, rounds=3)
    assert seen == [0.0, 0.5, 0.75]
    assert tfprune.Pruner(ticket).sparsity == 0.875


@given(st.floats(0.1, 0.95), st.integers(1, 3), st.sampled_from(["global", "uniform"]))
@settings(max_examples=12)
def test_the_sparsity_is_exact(sparsity, rounds, allocation):
    model = keras.Sequential([keras.Input((7,)), layers.Dense(9), layers.Dense(5)])

    def train(network, callbacks):
        network.set_weights([w.numpy() + 1 if w.dtype != "bool" else w for w in network.weights])

    ticket = lottery_ticket(model, train, sparsity, rounds, allocation=allocation)
    kept = [int(np.count_nonzero(w.alive())) for w in tfprune.Pruner(ticket).weights]
    sizes = [63, 45]
    if allocation == "uniform":
        assert kept == [kept_count(size, sparsity) for size in sizes]
    else:
        assert sum(kept) == max(kept_count(sum(sizes), sparsity), 2)


@pytest.mark.parametrize(
    ("pattern", "sparsity"), [("2:4", 0.5), (tfprune.patterns.Block((1, 4)), 0.75)]
)
def test_patterns_are_kept_by_the_ticket(pattern, sparsity, dense_net, train):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16), layers.Dense(4)])
    ticket = lottery_ticket(model, train, sparsity, 2, pattern=pattern, allocation="uniform")
    for weight in tfprune.Pruner(ticket).weights:
        mask = weight.alive()
        groups = mask.T.reshape(-1, 4) if pattern == "2:4" else mask.reshape(-1, 4)
        assert set(groups.sum(axis=1)) <= ({2} if pattern == "2:4" else {0, 4})
        assert mask.mean() == 1 - sparsity


def test_everything_else_is_what_it_was_before_training(net, train):
    net.get_layer("norm").moving_mean.assign(np.arange(16))
    initial = [numbers(v) for v in net.variables]
    ticket = lottery_ticket(net, train, 0.8, rounds=2)
    assert all(np.array_equal(numbers(v), i) for v, i in zip(net.variables, initial, strict=True))
    plain = tfprune.strip(ticket)
    assert [v.path for v in plain.weights] == [v.path for v in net.weights]
    masks = {w.path: w.alive() for w in tfprune.Pruner(ticket).weights}
    assert len(masks) == 2
    for variable, before in zip(plain.variables, initial, strict=True):
        expected = np.where(masks.get(variable.path, True), before, 0)
        assert np.array_equal(numbers(variable), expected), variable.path


@pytest.mark.parametrize(("per_execution", "steps"), [(1, 3), (2, 4)])
def test_weights_are_rewound_to_those_after_the_first_steps(per_execution, steps, net, dense_data):
    def train(model, callbacks):
        model.compile("adam", _loss(), steps_per_execution=per_execution)
        model.fit(
            *dense_data, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=callbacks
        )

    ticket = lottery_ticket(net, train, 0.8, rounds=1, rewind_step=3)
    # The same steps, by hand: dropout draws the same numbers.
    net.compile("adam", _loss())
    for start in range(0, 8 * steps, 8):
        net.train_on_batch(*(part[start : start + 8] for part in dense_data))
    masks = {w.path: w.alive() for w in tfprune.Pruner(ticket).weights}
    for variable, early in zip(tfprune.strip(ticket).weights, net.weights, strict=True):
        expected = np.where(masks.get(variable.path, True), numbers(early), 0)
        np.testing.assert_allclose(numbers(variable), expected, atol=1e-6)


def test_steps_are_counted_over_epochs_and_calls_of_fit(net, dense_data):
    seen = []

    def train(model, callbacks):
        model.compile("sgd", _loss(), run_eagerly=True)
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(numbers(model.layers[0].kernel))
        )
        for epochs in (1, 2):
            model.fit(
                *dense_data, batch_size=8, epochs=epochs, verbose=0, callbacks=[*callbacks, note]
            )

    ticket = lottery_ticket(net, train, 0.5, rounds=1, rewind_step=12)
    assert len(seen) == 15
    weight = tfprune.Pruner(ticket).weights[0]
    assert np.array_equal(weight.values(), np.where(weight.alive(), seen[11], 0))


def test_the_weights_are_the_models_own_when_another_one_calls_fit(net, dense_data):
    def train(model, callbacks):
        outer = keras.Sequential([keras.Input((8,)), model, layers.Softmax()])
        outer.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        outer.fit(*dense_data, verbose=0, callbacks=callbacks)

    ticket = lottery_ticket(net, train, 0.5, rounds=2, rewind_step=1)
    assert tfprune.Pruner(ticket).sparsity == 0.5


def test_a_ticket_trains_without_losing_its_zeros(net, train):
    ticket = lottery_ticket(net, train, 0.75, rounds=1)
    before = tfprune.Pruner(ticket).weights[0].values()
    train(ticket, [])
    weight = tfprune.Pruner(ticket).weights[0]
    assert (weight.values()[~weight.alive()] == 0).all()
    assert not np.array_equal(weight.values(), before)
    assert tfprune.Pruner(ticket).sparsity == 0.75


def test_weights_that_are_zero_at_first_are_weights_like_the_others(train):
    zeros = layers.Dense(3, kernel_initializer="zeros", name="d2")
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, name="d1"), zeros])
    ticket = lottery_ticket(model, train, 0.5, rounds=1, allocation="uniform")
    assert list(tfprune.Pruner(ticket).sparsities().values()) == [0.5, 0.5]
    train(ticket, [])
    assert np.count_nonzero(ticket.get_layer("d2").kernel) == 24


def test_a_ticket_can_be_the_start_of_a_sparser_one():
    half = lottery_ticket(line([10, 20, 30, 40]), learns([4, 1, 3, 2]), 0.5, rounds=1)
    assert kernel(lottery_ticket(half, learns([1, 8, 2, 9]), 0.75, rounds=1)) == [0, 0, 30, 0]
    with pytest.raises(InvalidArgumentError, match=r"above what the model has already, 0\.5"):
        lottery_ticket(half, learns(), 0.5)


def test_only_what_is_included_is_pruned(net, train):
    ticket = lottery_ticket(net, train, 0.5, rounds=1, include="d1")
    assert [w.path for w in tfprune.Pruner(ticket).weights] == [net.get_layer("d1").kernel.path]


def test_a_criterion_may_look_at_data_and_the_trained_models_loss(net, train, dense_data):
    ticket = lottery_ticket(net, train, 0.5, rounds=2, criterion="taylor", data=dense_data)
    assert tfprune.Pruner(ticket).sparsity == 0.5
    with pytest.raises(InvalidArgumentError, match="looks at data"):
        lottery_ticket(net, train, 0.5, criterion="taylor")


def test_the_control_of_the_docstring_has_the_same_masks_and_other_weights(net, train):
    ticket = lottery_ticket(net, train, 0.5, rounds=1)
    control = tfprune.prune(ticket, "keep")
    for weight in tfprune.Pruner(control).weights:
        weight.variable.assign(keras.initializers.HeNormal()(weight.variable.shape))
        weight.apply_mask()
    for ours, other in zip(
        tfprune.Pruner(ticket).weights, tfprune.Pruner(control).weights, strict=True
    ):
        alive = ours.alive()
        assert np.array_equal(alive, other.alive())
        assert np.array_equal(alive, other.values() != 0)
        assert (ours.values() != other.values())[alive].all()


def never(model, callbacks):
    raise AssertionError("trained before the arguments were checked")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sparsity": 80}, InvalidArgumentError, "pass 0.8 for 80 % zeros"),
        ({"sparsity": 0}, InvalidArgumentError, "above what the model has already, 0"),
        ({"rounds": 0}, InvalidArgumentError, "`rounds` must be at least 1"),
        ({"rounds": 2.0}, InvalidTypeError, "`rounds` must be an int"),
        ({"rewind_step": -1}, InvalidArgumentError, "`rewind_step` must be at least 0"),
        ({"rewind_step": True}, InvalidTypeError, "`rewind_step` must be an int"),
        ({"train": (1, 2)}, InvalidTypeError, r"function of \(model, callbacks\)"),
        ({"criterion": "movement"}, InvalidArgumentError, "'movement' sums over training steps"),
        (
            {"criterion": "rigl", "allocation": "uniform"},
            InvalidArgumentError,
            "'rigl' sums over training steps or lets pruned weights grow back",
        ),
        ({"pattern": "2:4"}, InvalidArgumentError, "2:4 has sparsity 0.5"),
        ({"include": "nothing"}, InvalidArgumentError, "Nothing in the model matches"),
    ],
)
def test_bad_arguments_are_refused_before_training(arguments, error, message, dense_net):
    with pytest.raises(error, match=message):
        lottery_ticket(dense_net, **{"train": never, "sparsity": 0.8, **arguments})


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UnsupportedModelError, match="a class of its own"):
        lottery_ticket(Own(), never, 0.5)


def test_training_something_else_is_refused(net, train):
    with pytest.raises(InvalidArgumentError, match="left the weights as they were"):
        lottery_ticket(net, lambda model, _: train(keras.models.clone_model(model), []), 0.5)


def test_rewinding_without_the_callbacks_is_refused(net, train):
    with pytest.raises(InvalidArgumentError, match="did not use the callbacks"):
        lottery_ticket(net, lambda model, _: train(model, []), 0.5, rewind_step=1)


def test_rewinding_past_the_training_is_refused(net, train):
    with pytest.raises(InvalidArgumentError, match="ended after 4 steps, before `rewind_step`=5"):
        lottery_ticket(net, train, 0.5, rewind_step=5)

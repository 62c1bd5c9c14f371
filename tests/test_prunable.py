import inspect

import keras
import pytest

from tests.layer_zoo import ZOO, Reader
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.kernel_layout import KernelLayout
from tfprune.prunable import SkipReason, find_candidates, register_prunable

layers = keras.layers


def reasons(model):
    return {c.path: c.reason for c in find_candidates(model)}


@pytest.mark.parametrize("example", ZOO.values(), ids=ZOO)
def test_the_kernels_of_every_layer_are_found(example):
    taken = [c for c in find_candidates(example.model()) if c.reason is None]
    assert len(taken) == example.kernels
    assert all(c.layout.shape == tuple(c.variable.shape) for c in taken)
    assert not any("bias" in c.path for c in taken)


def test_every_keras_layer_that_makes_a_kernel_is_in_the_table():
    makes_kernel = {
        name
        for name, cls in vars(layers).items()
        if inspect.isclass(cls)
        and issubclass(cls, layers.Layer)
        and cls.__name__ == name
        and any("kernel_initializer" in p for p in inspect.signature(cls.__init__).parameters)
    }
    cells = {"LSTMCell", "GRUCell", "SimpleRNNCell"}  # In the table inside of an RNN.
    assert makes_kernel - cells - {"ConvLSTM3D"} <= set(ZOO)
    assert len(makes_kernel) > 15


def test_the_roles_of_the_axes_are_known():
    def taps_shapes(example):
        return [c.layout.taps_shape for c in find_candidates(example.model()) if c.reason is None]

    assert taps_shapes(ZOO["Conv2DTranspose"]) == [(9, 4, 6)]
    assert taps_shapes(ZOO["EinsumDense"]) == [(1, 5, 6)]
    assert taps_shapes(ZOO["MultiHeadAttention"]) == [(1, 6, 8)] * 3 + [(1, 8, 6)]


def test_a_subclass_counts_as_its_base():
    class Mine(layers.Dense):
        pass

    model = keras.Sequential([keras.Input((4,)), Mine(3, name="mine")])
    assert next(r for path, r in reasons(model).items() if path.endswith("mine/kernel")) is None


def test_what_is_not_a_kernel_says_so():
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), layers.DepthwiseConv2D(2, name="dw"), layers.BatchNormalization()]
    )
    assert set(reasons(model).values()) == {SkipReason.ON_REQUEST, SkipReason.NOT_A_KERNEL}


def test_frozen_lora_and_quantized_layers_say_so():
    model = keras.Sequential([keras.Input((4,))] + [layers.Dense(4, name=n) for n in "abc"])
    model.get_layer("a").trainable = False
    model.get_layer("b").enable_lora(2)
    model.get_layer("c").quantize("int8")
    by_name = {
        path.split("/")[-2]: reason for path, reason in reasons(model).items() if "bias" not in path
    }
    assert by_name["a"] is SkipReason.FROZEN
    assert by_name["b"] is SkipReason.LORA
    assert set(reasons(keras.Sequential([model.get_layer("c")])).values()) == {SkipReason.QUANTIZED}


def test_a_weight_tied_between_two_layers_is_found_once():
    inputs = keras.Input((4,))
    dense = layers.Dense(3, name="dense")
    model = keras.Model(inputs, Reader(dense)(dense(inputs)))
    assert [c.path for c in find_candidates(model) if c.reason is None] == ["dense/kernel"]


def test_an_unknown_layer_can_be_registered():
    class Mixer(layers.Layer):
        def build(self, shape):
            self.matrix = self.add_weight(shape=(6, shape[-1]), name="matrix")

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.matrix))

    model = keras.Sequential([keras.Input((4,)), Mixer()])
    assert list(reasons(model).values()) == [SkipReason.UNKNOWN_LAYER]

    def layout(layer, shape):
        return KernelLayout(shape, input_axes=(1,), output_axes=(0,))

    register_prunable(Mixer, ["matrix"], layout=layout)
    (candidate,) = find_candidates(model)
    assert candidate.reason is None
    assert candidate.layout.taps_shape == (1, 4, 6)
    register_prunable(Mixer, ["matrix"], layout=layout)  # The same again: a notebook cell.
    with pytest.raises(InvalidArgumentError, match="Mixer is registered already"):
        register_prunable(Mixer, ["other"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((str, ["kernel"]), InvalidTypeError, "subclass of keras.layers.Layer"),
        ((layers.Dense(3), ["kernel"]), InvalidTypeError, "subclass of keras.layers.Layer"),
        ((layers.Flatten, "kernel"), InvalidArgumentError, "list of attribute names"),
        ((layers.Flatten, []), InvalidArgumentError, "list of attribute names"),
    ],
)
def test_bad_registrations_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        register_prunable(*arguments)

"""Models that cannot be exported are refused at once, with the name of the layer."""

import keras
import numpy as np
import pytest

from tfprune.errors import InvalidTypeError, UnsupportedModelError
from tfprune.export.exportable import plain_model

layers = keras.layers


def functional(*stack, **options):
    x = inputs = keras.Input((4,))
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x, **options)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (lambda: functional(layers.Dense(2, name="_hidden")), "_hidden"),
        (lambda: functional(layers.Dense(2, name="my layer")), "my layer"),
        (lambda: functional(layers.Dense(2, name="größe")), "größe"),
        (lambda: functional(layers.Dense(2), name="_model"), "_model"),
        (lambda: functional(keras.Sequential([layers.ReLU()], name="_block")), "_block"),
        (lambda: functional(keras.Sequential([layers.Dense(2, name="a b")], name="block")), "a b"),
    ],
)
def test_names_that_tensorflow_refuses_are_listed(model, name):
    with pytest.raises(UnsupportedModelError, match=rf"names \['{name}'\]"):
        plain_model(model())


@pytest.mark.parametrize(
    "model",
    [
        lambda: functional(layers.ReLU(name="_relu")),
        lambda: functional(keras.Sequential([layers.Dense(2, name="_d")], name="block")),
        lambda: keras.Model(x := keras.Input((4,), name="_in"), layers.Dense(2)(x)),
    ],
)
def test_names_that_tensorflow_accepts_pass_and_export(model, tmp_path):
    from tfprune.export import export_model

    assert export_model(model(), tmp_path / "build", "savedmodel").names == ["savedmodel"]


def test_what_is_no_model_is_a_type_error():
    with pytest.raises(InvalidTypeError, match="Received: .*str"):
        plain_model("model.keras")
    with pytest.raises(InvalidTypeError, match=r"must be a keras.Model. Received: Dense"):
        plain_model(layers.Dense(2))


@pytest.mark.parametrize("build", [False, True])
def test_an_unbuilt_model_is_refused(build):
    class Net(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(UnsupportedModelError, match="is not built"):
        plain_model(keras.Sequential([layers.Dense(2)]) if build else Net())


def test_layers_that_keep_state_are_refused():
    model = keras.Sequential(
        [keras.Input(batch_shape=(1, 3, 2)), layers.LSTM(2, stateful=True, name="memory")]
    )
    with pytest.raises(UnsupportedModelError, match=r"layers \['memory'\] keep state"):
        plain_model(model)


def test_a_tf_keras_model_is_refused_by_name():
    # Only the name of the module counts; tf_keras itself takes ten seconds to import.
    base = type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})
    with pytest.raises(UnsupportedModelError, match=r"tf_keras \(Keras 2\) .* Keras 3"):
        plain_model(type("Net", (base,), {})())


def test_a_plain_model_is_not_copied(dense):
    assert plain_model(dense) is dense
    assert dense(np.zeros((1, 4))).shape == (1, 3)

"""The counter that is counted in Python and saved like a variable."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.step_counter import StepCounter


class Holder(keras.layers.Layer):
    """A layer with nothing but a counter."""

    def __init__(self):
        super().__init__()
        self.counter = StepCounter("counter")
        self.built = True


@pytest.mark.parametrize(
    "look",
    [
        lambda counter: counter.numpy(),
        np.asarray,
        lambda counter: counter.value.numpy(),
        keras.ops.convert_to_numpy,
        lambda counter: tf.convert_to_tensor(counter).numpy(),
    ],
)
def test_whoever_looks_sees_the_count(look):
    counter = StepCounter("counter")
    counter.count = 41
    counter.count += 1
    assert look(counter) == 42
    counter.count += 1
    assert look(counter) == 43


def test_an_assigned_value_is_counted_on():
    counter = StepCounter("counter")
    counter.count = 5
    counter.assign(70)
    counter.count += 1
    assert (counter.count, int(counter.numpy())) == (71, 71)


def test_a_checkpoint_restores_the_count(tmp_path):
    holder = Holder()
    holder.counter.count = 7
    checkpoint = tf.train.Checkpoint(holder=holder)
    path = checkpoint.write(str(tmp_path / "state"))
    holder.counter.count = 99
    checkpoint.read(path).assert_consumed()
    assert holder.counter.count == 7


def test_get_weights_and_set_weights_carry_the_count():
    holder, other = Holder(), Holder()
    holder.counter.count = 7
    assert other.counter.count == 0
    other.set_weights(holder.get_weights())
    assert other.counter.count == 7

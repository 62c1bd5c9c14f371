"""Operations without weights in a narrower model: what of their arguments counts channels.

Most follow the shapes of their inputs. Those that name a shape of their own - a Reshape - get it
rewritten, unless it is given as -1.
"""

from __future__ import annotations

from typing import Any

import keras
from keras.src.ops import numpy as numpy_ops

# The argument that holds a shape, and the axis that its first entry is about.
_SHAPES = (
    (keras.layers.Reshape, "target_shape", 1),
    (numpy_ops.Reshape, "newshape", 0),
    (numpy_ops.BroadcastTo, "shape", 0),
)


def narrow_operation(operation: Any, axis: int | None, size: int | None) -> Any:
    """Return a copy of an operation that names the shape of its output, with another size in it.

    Args:
        operation: a layer without weights, or an inline operation.
        axis: the axis of the output that has another size; `None` if none has.
        size: the new size.

    Returns:
        The copy; `None` if nothing in the operation has to change.
    """
    for kind, argument, first in _SHAPES:
        if isinstance(operation, kind) and axis is not None:
            config = operation.get_config()
            shape = list(config[argument])
            if shape[axis - first] == -1:
                return None
            shape[axis - first] = size
            return type(operation).from_config({**config, argument: tuple(shape)})
    return None


# They do the same whatever the size of the axes that have no channels, so a small size shows it.
_LOCAL_LAYERS = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.AlphaDropout,
    keras.layers.Average,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.Concatenate,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    keras.layers.LeakyReLU,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.Softmax,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.Subtract,
    keras.layers.UpSampling1D,
    keras.layers.UpSampling2D,
    keras.layers.UpSampling3D,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)
_LOCAL_OPERATIONS = {
    "keras.src.ops.numpy": "Absolute Add Clip Divide Maximum Minimum Multiply Negative Square "
    "Subtract Tanh TrueDivide",
    "keras.src.ops.nn": "Elu Gelu HardSigmoid HardSilu LeakyRelu Relu Relu6 Selu Sigmoid Silu "
    "Softplus",
}


def is_kerass(thing: Any) -> bool:
    """Whether a function, or an object's class, is Keras's own; so is `None`."""
    origin = thing if hasattr(thing, "__module__") else type(thing)
    return thing is None or str(origin.__module__).startswith("keras.")


def is_local(operation: Any) -> bool:
    """Whether an operation may be probed at a small size: it does the same at every size."""
    # A user's subclass, or a function of the user's, may do something else.
    if type(operation) in _LOCAL_LAYERS:
        return is_kerass(getattr(operation, "activation", None))
    module = type(operation).__module__
    return type(operation).__name__ in _LOCAL_OPERATIONS.get(module, "").split()

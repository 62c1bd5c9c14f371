"""What every entry point asks of the model that it is given."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.errors import InvalidTypeError, UnsupportedModelError


def is_tf_keras(layer: Any) -> bool:
    """Whether the object is of a class of `tf_keras` (Keras 2), or of a subclass of one."""
    return any(cls.__module__.split(".")[0] == "tf_keras" for cls in type(layer).__mro__)


def check_layer(layer: Any) -> None:
    """Refuse anything but a Keras 3 layer or model.

    Raises:
        UnsupportedModelError: for a `tf_keras` (Keras 2) object.
        InvalidTypeError: for anything else that is not a Keras layer.
    """
    if isinstance(layer, keras.layers.Layer):
        return
    if is_tf_keras(layer):
        raise UnsupportedModelError(
            f"This is a tf_keras (Keras 2) object, {type(layer).__name__}; tfprune works on "
            "Keras 3. Save its weights and load them into the same model built with `keras`, or "
            "load the file with `keras.models.load_model`."
        )
    raise InvalidTypeError(
        f"Expected a Keras model or layer. Received: {layer!r} (of type {type(layer).__name__})"
    )


def check_built(model: keras.Model) -> None:
    """Refuse a model whose weights do not exist yet.

    Raises:
        UnsupportedModelError: if the model, or a part of it, is not built.
    """
    unbuilt = [layer.name for layer in model._flatten_layers() if not layer.built]
    if unbuilt or not getattr(model, "inputs", True):
        raise UnsupportedModelError(
            f"The model {model.name!r} is not built yet, so it has no weights to prune: add an "
            "`Input` layer, call `model.build(input_shape)`, or call the model on a batch. "
            f"Unbuilt: {', '.join(unbuilt[:8]) or model.name}"
        )


def subclassed_model_error(model: keras.layers.Layer, remedy: str) -> UnsupportedModelError:
    """Build the error for a model that cannot be rebuilt; `remedy` is code that works."""
    return UnsupportedModelError(
        f"{model.name!r} is a {type(model).__name__}: a class of its own, which cannot be taken "
        f"apart and rebuilt. Work on it in place: `{remedy}`, with "
        "`tfprune.callbacks.UpdateMasks(pruner)` in `fit`."
    )

"""Refusing models that cannot be exported, before any work is done, with the reason and the way.

Keras reports most of these deep in TensorFlow, in words that do not name the layer.
"""

import re
from typing import Any

from tfprune.errors import InvalidTypeError, UnsupportedModelError

# What TensorFlow accepts as a name scope; the outermost one must not start with "_", "/" or "-".
_SCOPE = re.compile(r"[A-Za-z0-9_.\\/>-]*")
_ROOT_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")


def plain_model(model: Any) -> Any:
    """Check that a model can be exported, and strip its pruning wrappers.

    Args:
        model: what the user passed.

    Returns:
        The model itself, or a stripped copy if it holds pruning wrappers.

    Raises:
        InvalidTypeError: it is no Keras model.
        UnsupportedModelError: it is a `tf_keras` model, is not built, holds stateful layers, or
            names that TensorFlow refuses.
    """
    import keras

    from tfprune.model_checks import check_layer

    check_layer(model)
    if not isinstance(model, keras.Model):
        raise InvalidTypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}.")
    if not model.built or not getattr(model, "inputs", True):
        raise UnsupportedModelError(
            f"The model {model.name!r} is not built, so its inputs and weights are unknown. Call "
            "it on an example first, or give a Sequential model a `keras.Input`."
        )
    from tfprune.pruning import is_pruned, strip

    if is_pruned(model):
        model = strip(model)
    _check_names(model)
    stateful = [
        layer.name
        for layer in model._flatten_layers(include_self=False)
        if getattr(layer, "stateful", False)
    ]
    if stateful:
        raise UnsupportedModelError(
            f"The layers {stateful} keep state from one call to the next, which artifacts do not. "
            "Rebuild them with `stateful=False`."
        )
    return model


def _check_names(model: Any) -> None:
    import keras

    roots = {weight.path.partition("/")[0] for weight in model.weights}
    names = {layer.name for layer in model._flatten_layers() if not _is_input(layer)}
    if getattr(model, "inputs", None):
        # A nested model opens a scope of its own even if it has no weights.
        roots |= {layer.name for layer in model.layers if isinstance(layer, keras.Model)}
    roots.add(model.name)
    wrong = {name for name in roots if not _ROOT_SCOPE.fullmatch(name)}
    wrong |= {name for name in names if not _SCOPE.fullmatch(name)}
    if wrong:
        raise UnsupportedModelError(
            f"TensorFlow cannot export layers or models with the names {sorted(wrong)}: a name "
            "starts with an ASCII letter or digit, and goes on with letters, digits and `_ . - >`. "
            "Rename them, e.g. with keras.models.clone_model and a clone_function."
        )


def _is_input(layer: Any) -> bool:
    import keras

    return isinstance(layer, keras.layers.InputLayer)

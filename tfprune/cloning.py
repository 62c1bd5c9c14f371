"""Rebuild a Functional or Sequential model with other layers in place of some of its own.

`keras.models.clone_model` loses optional and sparse inputs, `trainable` flags and layer state, and
carries the compile state over. Here the graph is walked call by call, so shared layers stay shared,
inline operations keep their arguments, and nested models are rebuilt in place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras.src.models.functional import Functional

from tfprune.errors import UnsupportedModelError

Replace = Callable[[keras.layers.Layer, "LayerCopier"], keras.layers.Layer]


def is_rebuildable(layer: Any) -> bool:
    """Whether the object is a plain Functional or Sequential model, not a class of the user's."""
    return type(layer) in (Functional, keras.Sequential)


class LayerCopier:
    """Copies layers now, and their state once the copies are built.

    Args:
        copy: whether to copy; otherwise the given layers are used as they are.
    """

    def __init__(self, copy: bool = True) -> None:
        self._copy = copy
        self._pairs: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def copy(
        self,
        layer: keras.layers.Layer,
        change: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> keras.layers.Layer:
        """Return an unbuilt copy of a layer, whose state follows in `transfer_state`.

        Args:
            layer: the layer.
            change: a function of its config that returns the config of the copy.

        Raises:
            UnsupportedModelError: if the layer has weights and cannot be made from its config.
        """
        # A Python lambda is not deserialized, for safety; the layer has no state anyway.
        if not self._copy or isinstance(layer, keras.layers.Lambda):
            return layer
        try:
            config = without_build_configs(layer.get_config())
            new = type(layer).from_config(change(config) if change else config)
        except Exception as error:
            if not layer.variables:
                return layer
            raise UnsupportedModelError(
                f"The layer {layer.name!r} ({type(layer).__name__}) cannot be copied from its "
                f"config: {error} Define `get_config()` on it, or pass `copy=False` to use the "
                "given layers themselves, or prune the model in place with "
                "`tfprune.Pruner(model, schedule=...)`."
            ) from error
        self._pairs.append((layer, new))
        return new

    def pair(self, old: keras.layers.Layer, new: keras.layers.Layer) -> None:
        """Note that `new` is a rebuilt model, whose own flags follow in `transfer_state`."""
        self._pairs.append((old, new))

    def transfer_state(self, value_of: Callable[[keras.Variable], Any] | None = None) -> None:
        """Copy weights, random seeds, `trainable` flags and vocabularies to the built copies.

        Args:
            value_of: what the copy of a variable gets; by default the variable's own value.

        Raises:
            UnsupportedModelError: if a copy does not have the variables of its original.
        """
        for old, new in self._pairs:
            new._trainable = old._trainable
            if is_rebuildable(old):
                continue
            values = [value_of(v) if value_of else v for v in old.variables]
            shapes = [[tuple(v.shape) for v in part] for part in (values, new.variables)]
            if shapes[0] != shapes[1]:
                raise UnsupportedModelError(
                    f"The copy of layer {old.name!r} ({type(old).__name__}) has variables of "
                    f"shapes {shapes[1]}, the original {shapes[0]}: its `get_config()` does not "
                    "describe it fully. Mend it, or pass `copy=False`."
                )
            for old_variable, value, new_variable in zip(
                old.variables, values, new.variables, strict=True
            ):
                new_variable.assign(value)
                new_variable.trainable = old_variable.trainable
            for old_part, new_part in zip(
                old._flatten_layers(), new._flatten_layers(), strict=True
            ):
                new_part._trainable = old_part._trainable
                transfer_assets(old_part, new_part)


def rebuild(
    model: keras.Model,
    replace: Replace,
    copier: LayerCopier,
    bypass: Mapping[int, Callable[..., Any]] | None = None,
) -> tuple[keras.Model, dict[int, keras.layers.Layer]]:
    """Build the same model from the layers that `replace` returns.

    Args:
        model: a built model for which `is_rebuildable` holds.
        replace: function of `(layer, copier)` that returns the layer to call instead.
        copier: copies layers for `replace`; its `transfer_state` is called at the end.
        bypass: functions to call instead of operations that are left out, by their `id`; layers
            of a Sequential model are just left out.

    Returns:
        The new, uncompiled model, and the new layers by the `id` of the old ones.
    """
    bypass = bypass or {}
    new_layers: dict[int, Any] = dict(bypass)

    def new_operation(operation: Any) -> Any:
        if id(operation) not in new_layers:
            new_layers[id(operation)] = _new_operation(operation)
        return new_layers[id(operation)]

    def _new_operation(operation: Any) -> Any:
        if is_rebuildable(operation):
            return new_model(operation)
        if isinstance(operation, keras.layers.Layer):
            return replace(operation, copier)
        return copy_operation(operation)

    def new_model(old: keras.Model) -> keras.Model:
        if isinstance(old, keras.Sequential):
            kept = [new_operation(layer) for layer in old.layers if id(layer) not in bypass]
            new = keras.Sequential([copy_input(old.inputs[0]), *kept], name=old.name)
        else:
            inputs = keras.tree.map_structure(lambda x: copy_input(x).output, old.input)
            outputs = old._run_through_graph(inputs, operation_fn=new_operation)
            new = Functional(inputs, outputs, name=old.name)
        copier.pair(old, new)
        return new

    rebuilt = new_operation(model)
    copier.transfer_state()
    return rebuilt, new_layers


def without_build_configs(config: Any) -> Any:
    """Drop the build configs of sublayers, which would build them outside of their parent's scope.

    Built by their parent instead, their weights have the paths that the original's have.
    """
    if isinstance(config, dict):
        return {k: without_build_configs(v) for k, v in config.items() if k != "build_config"}
    if isinstance(config, list):
        return [without_build_configs(item) for item in config]
    return config


def copy_input(tensor: keras.KerasTensor) -> keras.layers.InputLayer:
    """Return a copy of the layer that stands for an input of a model."""
    old = tensor._keras_history.operation
    return type(old).from_config(old.get_config())


def copy_operation(operation: Any) -> Any:
    """Return a copy of an inline operation, or itself if it has no config."""
    try:
        return type(operation).from_config(operation.get_config())
    except Exception:
        # Inline operations have no state, so one that has no config can serve both models.
        return operation


def transfer_assets(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Copy what is not a variable: vocabularies, and what Normalization derives from its own."""
    if hasattr(old, "save_assets") and hasattr(old, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)
    if callable(getattr(new, "finalize_state", None)):
        new.finalize_state()

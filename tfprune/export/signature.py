"""The inputs of a model as an artifact sees them: a flat list of named tensors.

Keras models take one tensor or any nested structure of them; SavedModel and TFLite signatures take
named tensors. A `Signature` holds both views and the way between them, so that no other module
guesses an order.
"""

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfprune.errors import InvalidArgumentError, UnsupportedModelError


@dataclass(frozen=True)
class TensorSpec:
    """One input.

    Args:
        name: its name in the artifacts: the Keras name with other characters replaced.
        keras_name: its name or dictionary key in the Keras model.
        shape: its shape without the batch axis; all sizes known.
        dtype: its dtype as a string.
    """

    name: str
    keras_name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Signature:
    """All inputs of a model, in the order of `keras.tree.flatten`.

    Args:
        specs: the inputs.
        structure: the nested structure that the model is called with; leaves are placeholders.
        batch_size: examples per call; None leaves it open.
    """

    specs: tuple[TensorSpec, ...]
    structure: Any
    batch_size: int | None

    def pack(self, arrays: Mapping[str, Any]) -> Any:
        """Arrange named tensors in the structure that the Keras model is called with."""
        import keras

        return keras.tree.pack_sequence_as(
            self.structure, [arrays[spec.name] for spec in self.specs]
        )

    def keras_specs(self) -> Any:
        """Return `keras.InputSpec`s in the structure that the Keras model is called with."""
        import keras

        return self.pack(
            {
                spec.name: keras.InputSpec(
                    shape=(self.batch_size, *spec.shape), dtype=spec.dtype, name=spec.name
                )
                for spec in self.specs
            }
        )

    def with_integer_dtypes(self, arrays: Sequence[np.ndarray]) -> "Signature":
        """Take over integer dtypes of data: a subclassed model does not record its own."""
        specs = tuple(
            replace(spec, dtype="int32") if array.dtype.kind in "iu" else spec
            for spec, array in zip(self.specs, arrays, strict=True)
        )
        return replace(self, specs=specs)


def signature_of(model: Any, batch_size: int | None = 1, input_shape: Any = None) -> Signature:
    """Read the inputs of a built Keras model.

    Args:
        model: a built `keras.Model`.
        batch_size: examples per call; None leaves it open.
        input_shape: sizes for inputs that leave some open, without the batch axis: a tuple for a
            model with one input, a dict by input name or a list in input order for several.

    Returns:
        The signature.

    Raises:
        UnsupportedModelError: an input is sparse, ragged, or of strings.
        InvalidArgumentError: a size is open and not given, or what is given does not fit.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2)])
        >>> signature_of(model).specs
        (TensorSpec(name='x', keras_name='x', shape=(4,), dtype='float32'),)
    """
    import keras

    structure = _input_structure(model)
    leaves = keras.tree.flatten_with_path(structure)
    names = [_keras_name(path, tensor) for path, tensor in leaves]
    tensors = [tensor for _, tensor in leaves]
    _check_kinds(names, tensors)
    _check_batch(names, tensors, batch_size)
    shapes = _resolve_shapes(names, tensors, input_shape)
    specs = []
    for name, tensor, shape in zip(names, tensors, shapes, strict=True):
        artifact_name = _artifact_name(name, {spec.name for spec in specs})
        specs.append(TensorSpec(artifact_name, name, shape, str(tensor.dtype)))
    placeholders = keras.tree.map_structure(lambda _: 0, structure)
    return Signature(tuple(specs), placeholders, batch_size)


def _input_structure(model: Any) -> Any:
    import keras

    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    if getattr(model, "inputs", None):
        return model.input
    config = model.get_build_config() or {}
    if "input_shape" not in config:
        raise UnsupportedModelError(
            f"The inputs of the subclassed model {model.name!r} are unknown. Its `call` must take "
            "one argument `inputs` (a tensor, list or dict), and it must have been called once."
        )

    def tensors_of(shape: Any) -> Any:
        if isinstance(shape, Mapping):
            return {key: tensors_of(value) for key, value in shape.items()}
        if all(size is None or isinstance(size, int) for size in shape):
            return keras.KerasTensor((None, *shape[1:]), model.input_dtype, name="inputs")
        return [tensors_of(value) for value in shape]

    return tensors_of(config["input_shape"])


def _keras_name(path: tuple, tensor: Any) -> str:
    if any(isinstance(key, str) for key in path):
        return "_".join(map(str, path))
    return tensor.name


def _artifact_name(name: str, taken: set[str]) -> str:
    # A signature refuses names that are not Python identifiers or start with an underscore.
    clean = re.sub(r"[^A-Za-z0-9_]", "_", name).lstrip("_")
    if not clean[:1].isalpha() or keyword.iskeyword(clean):
        clean = f"input_{clean}".rstrip("_")
    candidates = [clean, *(f"{clean}_{index}" for index in range(1, len(taken) + 1))]
    return next(candidate for candidate in candidates if candidate not in taken)


def _check_kinds(names: list[str], tensors: list[Any]) -> None:
    wrong = [
        f"{name!r} ({'sparse' if tensor.sparse else 'ragged' if tensor.ragged else tensor.dtype})"
        for name, tensor in zip(names, tensors, strict=True)
        if tensor.sparse or getattr(tensor, "ragged", False) or str(tensor.dtype) == "string"
    ]
    if wrong:
        raise UnsupportedModelError(
            f"Export handles dense numeric inputs only. Received: {', '.join(wrong)}. Export the "
            "part of the model behind those inputs, and feed it dense numbers."
        )


def _check_batch(names: list[str], tensors: list[Any], batch_size: int | None) -> None:
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.shape[0] is not None and tensor.shape[0] != batch_size:
            raise InvalidArgumentError(
                f"The input {name!r} was built for a batch of {tensor.shape[0]}: pass "
                f"`batch_size={tensor.shape[0]}` or rebuild the model without a batch size. "
                f"Received: batch_size={batch_size}."
            )


def _resolve_shapes(names: list[str], tensors: list[Any], given: Any) -> list[tuple[int, ...]]:
    wanted = [tuple(tensor.shape[1:]) for tensor in tensors]
    shapes = _given_shapes(names, wanted, given)
    for name, want, shape in zip(names, wanted, shapes, strict=True):
        if not _fits(want, shape):
            raise InvalidArgumentError(
                f"`input_shape` does not fit the input {name!r}: expected {want} (without the "
                f"batch axis; None is any size). Received: {shape}."
            )
    unknown = [f"{n!r} {s}" for n, s in zip(names, shapes, strict=True) if None in s]
    if unknown:
        raise InvalidArgumentError(
            f"An artifact needs fixed input sizes, and these are open: {', '.join(unknown)}. Pass "
            "`input_shape=`, e.g. (224, 224, 3) for one input or a dict by input name."
        )
    return shapes


def _fits(want: tuple, shape: tuple) -> bool:
    return len(want) == len(shape) and all(
        w is None or w == s for w, s in zip(want, shape, strict=True)
    )


def _given_shapes(names: list[str], wanted: list[tuple], given: Any) -> list[tuple]:
    if given is None:
        return wanted
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise InvalidArgumentError(
                f"`input_shape` names unknown inputs {unknown}; the model has {names}."
            )
        return [tuple(given.get(n, want)) for n, want in zip(names, wanted, strict=True)]
    shapes = [tuple(given)] if all(isinstance(size, int) for size in given) else list(given)
    if len(shapes) != len(names):
        raise InvalidArgumentError(
            f"`input_shape` must give a shape for each of the inputs {names}. Received: {given!r}."
        )
    return [tuple(shape) for shape in shapes]

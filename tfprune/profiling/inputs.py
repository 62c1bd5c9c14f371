"""What to trace a model with: the shape and dtype of each input, one example at a time.

A shape given as a tuple leaves the batch out, as in `keras.Input(shape=...)`. A tensor, array or
spec describes the whole batch, its first axis included.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

from tfprune.errors import InvalidArgumentError


@dataclass(frozen=True)
class ModelInputs:
    """Arguments for a call of the model, with a `tf.TypeSpec` for each tensor.

    Attributes:
        args: positional arguments.
        kwargs: arguments by name.
        batch: number of examples; 1 unless the model fixes its batch size.
    """

    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    batch: int = 1


@dataclass(frozen=True)
class _Input:
    """One tensor; the shape leaves the batch out."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    sparse: bool = False

    def spec(self, batch: int) -> tf.TypeSpec:
        kind = tf.SparseTensorSpec if self.sparse else tf.TensorSpec
        return kind((batch, *self.shape), self.dtype)


def model_inputs(model: keras.Model, input_shapes: Any) -> ModelInputs:
    """Find out what a model takes.

    Args:
        model: a built Keras model.
        input_shapes: what the user passed, see `tfprune.profile`; None to ask the model.

    Returns:
        The arguments to trace it with.

    Raises:
        InvalidArgumentError: if a size stays unknown, or `input_shapes` does not fit the model.
    """
    symbolic = getattr(model, "inputs", None)
    if symbolic:
        return _of_graph(model, symbolic, input_shapes)
    return _of_subclass(model, input_shapes)


def _of_graph(model: keras.Model, symbolic: list, input_shapes: Any) -> ModelInputs:
    inputs = [
        _Input(x.name, tuple(x.shape[1:]), x.dtype, bool(getattr(x, "sparse", False)))
        for x in symbolic
    ]
    given = _by_name(input_shapes, [x.name for x in inputs])
    inputs = [_refine(x, given[x.name], model) if x.name in given else x for x in inputs]
    _refuse_unknown(inputs)
    batch = next((x.shape[0] for x in symbolic if x.shape[0] is not None), 1)
    specs = iter([x.spec(batch) for x in inputs])
    structure = getattr(model, "_inputs_struct", symbolic)
    if isinstance(model, keras.Sequential):
        structure = symbolic[0]
    # Functional models may take a dict or a nested list: keep their structure.
    return ModelInputs(
        args=(keras.tree.map_structure(lambda _: next(specs), structure),), batch=batch
    )


def _by_name(input_shapes: Any, names: list[str]) -> dict[str, Any]:
    """Match what the user passed with the inputs of the model."""
    if input_shapes is None:
        return {}
    if isinstance(input_shapes, dict):
        unknown = [name for name in input_shapes if name not in names]
        if unknown:
            raise InvalidArgumentError(
                f"`input_shapes` names inputs that the model does not have: {unknown}. "
                f"Its inputs are {names}."
            )
        return dict(input_shapes)
    listed = [input_shapes] if _is_leaf(input_shapes) else list(input_shapes)
    if len(listed) != len(names):
        raise InvalidArgumentError(
            f"`input_shapes` must hold one shape for each of the inputs {names}, or be a dict by "
            f"name. Received: {input_shapes!r}."
        )
    return dict(zip(names, listed, strict=True))


def _refine(known: _Input, given: Any, model: keras.Model) -> _Input:
    new = _from_leaf(known.name, given, known.dtype)
    fits = len(new.shape) == len(known.shape) and all(
        size in (None, wanted) for size, wanted in zip(known.shape, new.shape, strict=True)
    )
    if not fits:
        raise InvalidArgumentError(
            f"Input {known.name!r} of model {model.name!r} has shape {known.shape} without the "
            f"batch axis, and `input_shapes` gives it {new.shape}."
        )
    return replace(known, shape=new.shape)


def _of_subclass(model: keras.Model, input_shapes: Any) -> ModelInputs:
    # Set by Keras when the model was built: a dict of one shape (structure) per argument.
    built_with = getattr(model, "_build_shapes_dict", None) or {}
    dtype = model.input_dtype
    if input_shapes is None:
        arguments = {
            name.removesuffix("_shape"): _map_leaves(shapes, dtype, name, with_batch=True)
            for name, shapes in built_with.items()
        }
        by_name = len(arguments) > 1
    elif isinstance(input_shapes, dict) and set(input_shapes) <= set(
        model._call_signature.parameters
    ):
        arguments = {
            name: _map_leaves(shapes, dtype, name) for name, shapes in input_shapes.items()
        }
        by_name = True
    else:
        arguments = {"inputs": _map_leaves(input_shapes, dtype, "inputs")}
        by_name = False
    flat = [x for x in keras.tree.flatten(arguments) if isinstance(x, _Input)]
    if not flat:
        raise InvalidArgumentError(
            f"The input shapes of model {model.name!r} are not known. Pass them without the batch "
            "axis, e.g. `input_shapes=(224, 224, 3)`."
        )
    _refuse_unknown(flat)
    specs = keras.tree.map_structure(lambda x: x.spec(1), arguments)
    if by_name:
        return ModelInputs(kwargs=specs)
    return ModelInputs(args=tuple(specs.values()))


def _map_leaves(structure: Any, dtype: str, name: str, *, with_batch: bool = False) -> Any:
    if isinstance(structure, dict):
        return {
            key: _map_leaves(value, dtype, f"{name}[{key!r}]", with_batch=with_batch)
            for key, value in structure.items()
        }
    if not _is_leaf(structure):
        return [
            _map_leaves(value, dtype, f"{name}[{i}]", with_batch=with_batch)
            for i, value in enumerate(structure)
        ]
    if with_batch:
        structure = structure[1:]
    return _from_leaf(name, structure, dtype)


def _is_leaf(value: Any) -> bool:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return True
    if not isinstance(value, (list, tuple)):
        raise InvalidArgumentError(
            "`input_shapes` must be a shape without the batch axis such as (224, 224, 3), a list "
            f"of them, or a dict by input name. Received: {value!r}."
        )
    return all(size is None or isinstance(size, int) for size in value)


def _from_leaf(name: str, given: Any, dtype: str) -> _Input:
    if not _is_leaf(given):
        raise InvalidArgumentError(
            f"`input_shapes` must give input {name!r} one shape. Received: {given!r}."
        )
    if hasattr(given, "shape"):
        return _Input(name, tuple(given.shape)[1:], keras.backend.standardize_dtype(given.dtype))
    return _Input(name, tuple(given), dtype)


def _refuse_unknown(inputs: list[_Input]) -> None:
    unknown = [x for x in inputs if None in x.shape]
    if unknown:
        listed = ", ".join(f"{x.name!r} has shape {x.shape}" for x in unknown)
        examples = {x.name: tuple(size or 64 for size in x.shape) for x in unknown}
        example = next(iter(examples.values())) if len(inputs) == 1 else examples
        raise InvalidArgumentError(
            f"MACs depend on sizes that the model leaves open: input {listed} without the batch "
            f"axis. Pass the sizes to count for, e.g. `input_shapes={example}`."
        )

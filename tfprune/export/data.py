"""Samples: the inputs that int8 formats are calibrated with and that artifacts are verified on.

Whatever a user has - arrays, a dict, a `tf.data.Dataset`, batches - becomes one `Samples` of arrays
by input name, checked against the signature before anything is written. Random inputs stand in
when there is no data; they say so, and stay in the ranges that the model's layers accept.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.export.signature import Signature, TensorSpec


@dataclass(frozen=True)
class Samples:
    """Examples for all inputs of a model.

    Args:
        arrays: by input name of the signature, shape (count, ...), in the dtype of the input.
        source: where they come from, for the report.
    """

    arrays: dict[str, np.ndarray]
    source: str

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(next(iter(self.arrays.values())))

    @property
    def description(self) -> str:
        """How many examples from where."""
        return f"{self.count} examples of {self.source}"

    def first(self, count: int) -> "Samples":
        """Return the first `count` examples."""
        return Samples({k: v[:count] for k, v in self.arrays.items()}, self.source)

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """Yield batches of exactly `size` and the number of rows in them that are new.

        The last batch is filled up with the first examples: an artifact has a fixed batch size.
        """
        for start in range(0, self.count, size):
            rows = np.arange(start, start + size) % self.count
            batch = {name: array[rows] for name, array in self.arrays.items()}
            yield batch, min(size, self.count - start)


def read_arrays(data: Any, signature: Signature, limit: int, argument: str) -> list[np.ndarray]:
    """Read at most `limit` examples out of anything that holds inputs, in signature order.

    Args:
        data: an array; a list (in input order) or dict (by input name) of arrays for several
            inputs; a `tf.data.Dataset` or another iterable of batches, of which `(x, y)` gives x.
        signature: the inputs of the model.
        limit: examples to read.
        argument: the name to use in errors.

    Returns:
        One array per input; not yet checked against shapes and dtypes of the signature.

    Raises:
        InvalidTypeError: `data` holds no arrays.
        InvalidArgumentError: inputs are missing, unknown or of different lengths; no examples.
    """
    batches, count = [], 0
    for batch in _batches(data, signature, argument):
        arrays = _arrays_of(batch, signature, argument)
        lengths = [array.shape[0] if array.ndim else None for array in arrays]
        if None in lengths or len(set(lengths)) > 1:
            names = [spec.keras_name for spec in signature.specs]
            raise InvalidArgumentError(
                f"`{argument}` must hold arrays with the same number of examples on the first axis "
                f"for {names}. Received shapes: {[array.shape for array in arrays]}."
            )
        batches.append(arrays)
        count += lengths[0]
        if count >= limit:
            break
    if not count:
        raise InvalidArgumentError(f"`{argument}` holds no examples; pass at least one.")
    trailing = {tuple(array.shape[1:] for array in arrays) for arrays in batches}
    if len(trailing) > 1:
        # Let the check against the signature name the batch that is wrong.
        return next(arrays for arrays in batches if not _fits(arrays, signature))
    return [np.concatenate(parts)[:limit] for parts in zip(*batches, strict=True)]


def checked_samples(arrays: list[np.ndarray], signature: Signature, argument: str) -> Samples:
    """Check arrays against the inputs of the model and cast them.

    Args:
        arrays: one per input, first axis the examples.
        signature: the inputs of the model.
        argument: the name to use in errors.

    Raises:
        InvalidArgumentError: a shape or dtype does not fit, or a value is not finite.
    """
    checked = {}
    for array, spec in zip(arrays, signature.specs, strict=True):
        if array.shape[1:] != spec.shape:
            raise InvalidArgumentError(
                f"`{argument}` does not fit the input {spec.keras_name!r}: expected shape "
                f"{_batch_shape(spec)} with the examples on the first axis. "
                f"Received: {array.shape}."
            )
        accepted = {"i": "iub", "u": "iub", "b": "b"}.get(np.dtype(spec.dtype).kind, "fiub")
        if array.dtype.kind not in accepted:
            raise InvalidArgumentError(
                f"`{argument}` does not fit the input {spec.keras_name!r}: expected dtype "
                f"{spec.dtype} with shape {_batch_shape(spec)}. Received: dtype {array.dtype} with "
                f"shape {array.shape}."
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InvalidArgumentError(
                f"`{argument}` holds NaN or infinite values for the input {spec.keras_name!r}."
            )
        checked[spec.name] = array.astype(spec.dtype)
    return Samples(checked, f"`{argument}`")


def random_samples(model: Any, signature: Signature, count: int, seed: int) -> Samples:
    """Draw inputs that the layers of the model accept.

    Floats are uniform in [0, 1), stretched to what a `Rescaling` on an input maps there (images in
    0..255); integers are below the smallest `Embedding` or `CategoryEncoding` of the model, and 0
    or 1 where there is none.

    Args:
        model: the plain Keras model.
        signature: its inputs.
        count: number of examples.
        seed: seed of the random generator.
    """
    rng = np.random.default_rng(seed)
    bound = _integer_bound(model)
    arrays = {}
    for spec in signature.specs:
        shape, dtype = (count, *spec.shape), np.dtype(spec.dtype)
        if dtype.kind == "b":
            arrays[spec.name] = rng.random(shape) < 0.5
        elif dtype.kind in "iu":
            top = bound or (256 if dtype == np.uint8 else 2)
            top = min(top, np.iinfo(dtype).max + 1)
            # 0 often means "masked", and a fully masked row is no input: draw it only if need be.
            arrays[spec.name] = rng.integers(min(1, top - 1), top, shape).astype(dtype)
        else:
            scale, offset = _rescaling_of(model, spec)
            arrays[spec.name] = ((rng.random(shape) - offset) / scale).astype(dtype)
    return Samples(arrays, f"random inputs (seed {seed})")


def _batches(data: Any, signature: Signature, argument: str) -> Iterable[Any]:
    if isinstance(data, Mapping) or _is_array(data):
        return [data]
    several = len(signature.specs) > 1
    if isinstance(data, list | tuple) and several and all(_is_array(part) for part in data):
        return [data]
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise InvalidTypeError(
            f"`{argument}` must be an array, a list or dict of arrays, a tf.data.Dataset or an "
            f"iterable of batches. Received: {type(data).__name__}."
        )
    return data


def _arrays_of(batch: Any, signature: Signature, argument: str) -> list[np.ndarray]:
    specs = signature.specs
    if isinstance(batch, Mapping):
        keys = [spec.keras_name if spec.keras_name in batch else spec.name for spec in specs]
        if set(keys) != set(batch):
            raise InvalidArgumentError(
                f"`{argument}` must hold the inputs {[spec.keras_name for spec in specs]}. "
                f"Received: {sorted(map(str, batch))}."
            )
        return [np.asarray(batch[key]) for key in keys]
    if isinstance(batch, list | tuple):
        if len(batch) == len(specs) and all(_is_array(part) for part in batch):
            return [np.asarray(part) for part in batch]
        # What `fit` takes: (x, y) or (x, y, sample_weight).
        if len(batch) in (2, 3) and (isinstance(batch, tuple) or len(specs) == 1):
            return _arrays_of(batch[0], signature, argument)
    elif _is_array(batch) and len(specs) == 1:
        return [np.asarray(batch)]
    raise InvalidArgumentError(
        f"`{argument}` must hold one array for each of the inputs "
        f"{[spec.keras_name for spec in specs]} in every batch. Received: "
        f"{type(batch).__name__}{f' of {len(batch)}' if isinstance(batch, list | tuple) else ''}."
    )


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__")


def _fits(arrays: list[np.ndarray], signature: Signature) -> bool:
    return all(a.shape[1:] == s.shape for a, s in zip(arrays, signature.specs, strict=True))


def _batch_shape(spec: TensorSpec) -> str:
    return f"({', '.join(['examples', *map(str, spec.shape)])})"


def _integer_bound(model: Any) -> int | None:
    sizes = [
        getattr(layer, attribute)
        for layer in model._flatten_layers()
        for attribute in ("input_dim", "num_tokens")
        if isinstance(getattr(layer, attribute, None), int)
    ]
    return min(sizes, default=None)


def _rescaling_of(model: Any, spec: TensorSpec) -> tuple[float, float]:
    import keras

    for layer in model._flatten_layers():
        if not isinstance(layer, keras.layers.Rescaling) or np.ndim(layer.scale):
            continue
        sources = [tensor.name for node in layer._inbound_nodes for tensor in node.input_tensors]
        if spec.keras_name in sources and np.ndim(layer.offset) == 0 and layer.scale:
            return float(layer.scale), float(layer.offset)
    return 1.0, 0.0

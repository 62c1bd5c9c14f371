"""Probing: run one operation alone, to see which input channels its outputs are made of.

Nothing has to be known about the operation. It is run on random inputs in which the channels are
changed bit by bit (see `bit_codes`), and then on narrower inputs: what comes out must be the
original output without the channels that were taken away. That second test is what makes a cut
safe; it finds constants as wide as the channels, slices at fixed places, and splits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.structured.bit_codes import MIXED, NONE, bit_table, read_codes
from tfprune.structured.walk import Call
from tfprune.structured.wiring import Wiring

_UNKNOWN = 8
"""Size of an axis that the model leaves open."""

Run = Callable[[list[np.ndarray]], list[Any]]


class ProbeError(Exception):
    """An operation that cannot be probed; the message says why."""


class OperationProbe:
    """One operation, with random inputs for it.

    Args:
        call: the call to probe.
        tensors: its symbolic inputs.
        wirings: the channels of each input; `None` where there are none.
        limit: the size to which axes without channels are cut down; only for operations that do
            the same at every size.
    """

    def __init__(
        self,
        call: Call,
        tensors: Sequence[keras.KerasTensor],
        wirings: Sequence[Wiring | None],
        limit: int | None = None,
    ) -> None:
        self._call = call
        self._wirings = list(wirings)
        self._random = np.random.default_rng(0)
        axes = {wiring.axis for wiring in wirings if wiring is not None}
        self._shapes = [_shape(tensor.shape, axes, limit) for tensor in tensors]
        self._dtypes = [tensor.dtype for tensor in tensors]

    def trace(self, units: Sequence[np.ndarray | None]) -> list[list[np.ndarray | None]]:
        """Find out on which units of the inputs each output element depends.

        Args:
            units: for each input the unit of each of its channels; `None` to leave it alone.

        Returns:
            For each output and each input an integer array of the output's shape without the
            batch: the unit, `NONE` or `MIXED`; `None` for inputs that were left alone.

        Raises:
            ProbeError: if the operation does not run on such inputs.
        """
        codes = [None if u is None else self._trace_input(i, u) for i, u in enumerate(units)]
        outputs = max((len(found) for found in codes if found is not None), default=0)
        return [[None if found is None else found[k] for found in codes] for k in range(outputs)]

    def narrows(
        self,
        kept_inputs: Sequence[Sequence[np.ndarray | None]],
        kept_outputs: Sequence[Sequence[tuple[int, np.ndarray] | None]],
        run_narrow: Callable[[list[Any], int], list[Any]],
    ) -> bool:
        """Whether the operation computes the same when channels are taken away.

        Without anything to try, it is not believed.

        Args:
            kept_inputs: for each try and each input the channels that stay, a boolean array.
            kept_outputs: for each try and each output its axis and the channels that stay.
            run_narrow: runs the narrower operation on narrower inputs, given the number of the try.

        Raises:
            ProbeError: if the operation does not run.
        """
        kinds = zip(self._shapes, self._dtypes, strict=True)
        inputs = [_values(self._random, shape, dtype, 2) for shape, dtype in kinds]
        outputs = self._run(inputs)
        for number, (kept, expected) in enumerate(zip(kept_inputs, kept_outputs, strict=True)):
            narrow = [
                array if k is None else np.compress(k, array, axis=wiring.axis)
                for array, k, wiring in zip(inputs, kept, self._wirings, strict=True)
            ]
            try:
                found = [_array(x) for x in run_narrow(narrow, number)]
            except Exception:
                return False
            for before, after, keep in zip(outputs, found, expected, strict=True):
                wanted = before if keep is None else np.compress(keep[1], before, axis=keep[0])
                if not _is_close(wanted, after):
                    return False
        return bool(kept_inputs)

    def selects(self, axis: int) -> list[tuple[int, np.ndarray]] | None:
        """Return the slots of the only input that each output is made of, if it is just that.

        Args:
            axis: the axis of the input that counts channels.

        Returns:
            For each output the axis and the indices to take from the input, or `None`.
        """
        [shape], [dtype] = self._shapes, self._dtypes
        slots = np.arange(shape[axis - 1])
        codes = self._trace_input(0, slots)
        inputs = _values(self._random, shape, dtype, 2)
        found = []
        for code, output in zip(codes, self._run([inputs]), strict=True):
            if code.ndim != len(shape):
                return None
            rows = np.moveaxis(code, axis - 1, 0).reshape(code.shape[axis - 1], -1)
            indices = rows[:, 0]
            if (rows != indices[:, None]).any() or (indices < 0).any():
                return None
            if not _is_close(np.take(inputs, indices, axis), output):
                return None
            found.append((axis, indices))
        return found

    def _trace_input(self, index: int, units: np.ndarray) -> list[np.ndarray]:
        names, places = np.unique(units, return_inverse=True)
        table = bit_table(len(names))[:, places]
        axis = self._wirings[index].axis
        shape = [1] * (1 + len(self._shapes[index]))
        shape[0], shape[axis] = table.shape
        table = table.reshape(shape)
        changed: list[np.ndarray] | None = None
        for change in _CHANGES:
            now = self._changed(index, table, change)
            changed = now if changed is None else [a | b for a, b in zip(changed, now, strict=True)]
            codes = [read_codes(part) for part in changed]
            if _is_clear(changed, codes, len(names)):
                break
        # From the end, NONE and MIXED are places of themselves.
        lookup = np.append(names, [MIXED, NONE])
        return [lookup[np.where(code < len(names), code, MIXED)] for code in codes]

    def _changed(self, index: int, table: np.ndarray, change: Any) -> list[np.ndarray]:
        """Return which elements of each output follow each change of an input's channels."""
        samples = len(table)
        inputs = []
        for i, (shape, dtype) in enumerate(zip(self._shapes, self._dtypes, strict=True)):
            base, other = change(self._random, shape, dtype)
            rows = np.where(table, other, base) if i == index else np.repeat(base, samples, axis=0)
            inputs.append(np.concatenate([base, rows]).astype(base.dtype))
        return [_differs(output[1:], output[:1]) for output in self._run(inputs)]

    def _run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        try:
            # Nothing of the model may change by being run.
            with keras.StatelessScope():
                tensors = [
                    keras.ops.convert_to_tensor(array, dtype)
                    for array, dtype in zip(inputs, self._dtypes, strict=True)
                ]
                outputs = [_array(output) for output in self._call.run(tensors)]
        except Exception as error:
            raise ProbeError(f"it does not run by itself ({_first_line(error)})") from error
        if any(output.ndim == 0 or len(output) != len(inputs[0]) for output in outputs):
            raise ProbeError("its output has no batch axis")
        return outputs


def _shape(shape: Sequence[int | None], axes: set[int], limit: int | None) -> tuple[int, ...]:
    """Return the sizes to probe with, without the batch."""
    sizes = []
    for axis, size in enumerate(shape[1:], start=1):
        known = _UNKNOWN if size is None else size
        sizes.append(known if limit is None or axis in axes else min(known, limit))
    return tuple(sizes)


def _values(random: np.random.Generator, shape: Any, dtype: str, count: int) -> np.ndarray:
    if dtype == "bool":
        return random.random((count, *shape)) < 0.5
    if "int" in dtype:
        return random.integers(0, 8, (count, *shape))
    return random.normal(size=(count, *shape)).astype(np.float32)


def _change(scale: float, sign: int, positive: bool) -> Any:
    """Return a function that makes a random base, and values that differ from it everywhere."""

    def make(random: np.random.Generator, shape: Any, dtype: str) -> tuple[Any, Any]:
        base = _values(random, shape, dtype, 1)
        if dtype == "bool":
            return base, ~base
        step = random.uniform(0.5, 1.5, base.shape)
        if "int" in dtype:
            return base, base + 1 + sign * np.round(scale * step).astype(int)
        base = scale * (np.abs(base) if positive else base)
        # Past the base in size, so that neither ReLU nor a maximum hides the difference.
        other = sign * (np.abs(base) + scale * step)
        return base.astype(np.float32), other.astype(np.float32)

    return make


# The later ones are for operations that hide small or negative differences: clip, round, log.
_CHANGES = (
    _change(1.0, 1, False),
    _change(1.0, -1, False),
    _change(0.3, 1, True),
    _change(3.0, 1, False),
    _change(40.0, -1, False),
)


def _is_clear(changed: list[np.ndarray], codes: list[np.ndarray], count: int) -> bool:
    """Whether a probe has shown all it can: every unit is seen, and no element is in doubt."""
    seen = np.unique(np.concatenate([code.ravel() for code in codes]))
    if np.count_nonzero(seen >= 0) < count and not (seen == MIXED).all():
        return False
    for part in changed:
        ones, zeros = np.split(part, 2)
        silent = (~ones & ~zeros).any(axis=0) & part.any(axis=0) & ~(ones & zeros).any(axis=0)
        if silent.any():
            return False
    return True


def _differs(values: np.ndarray, base: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "fc":
        return values != base
    step = np.abs(values - base) > 1e-6 * (1 + np.abs(base))
    return step | (np.isnan(values) != np.isnan(base))


def _is_close(wanted: np.ndarray, found: np.ndarray) -> bool:
    if wanted.shape != found.shape:
        return False
    if wanted.dtype.kind not in "fc":
        return np.array_equal(wanted, found)
    bound = 1e-5 * (1 + np.max(np.abs(wanted), initial=0, where=np.isfinite(wanted)))
    return np.allclose(wanted, found, rtol=1e-5, atol=bound, equal_nan=True)


def _array(tensor: Any) -> np.ndarray:
    array = keras.ops.convert_to_numpy(tensor)
    # bfloat16 is not numpy's own.
    return array if array.dtype.kind in "biu" else array.astype(np.float32)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]

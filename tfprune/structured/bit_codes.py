"""The bit-coded probe, in numbers: which input channel does each output element depend on?

Channels are numbered. For each bit of these numbers the input is changed twice: once in the
channels whose bit is 1, once in those whose bit is 0. An output element that follows the first
change and not the second has that bit set in the number of its channel; one that follows both
depends on several channels; one that follows neither may depend on none. numpy only.
"""

from __future__ import annotations

import numpy as np

NONE = -1
"""The code of an element that depends on no channel."""
MIXED = -2
"""The code of an element that depends on several channels, or does not show on which."""


def bit_table(count: int) -> np.ndarray:
    """Return which channels are changed in which sample.

    Args:
        count: number of channels.

    Returns:
        Boolean array `(2 * bits, count)`: the samples of bit 1 first, then those of bit 0.

    Example:
        >>> bit_table(3).astype(int).tolist()
        [[0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 0]]
    """
    bits = max(int(count - 1).bit_length(), 1)
    ones = (np.arange(count) >> np.arange(bits)[:, None] & 1).astype(bool)
    return np.concatenate([ones, ~ones])


def read_codes(changed: np.ndarray) -> np.ndarray:
    """Spell the channel that each element depends on.

    Args:
        changed: boolean array `(2 * bits, *shape)`: which elements followed each change.

    Returns:
        Integer array of `shape`: the channel's number, `NONE` or `MIXED`.

    Example:
        >>> changed = np.array([[0, 0, 1], [1, 0, 1], [1, 0, 1], [0, 0, 0]], bool)
        >>> read_codes(changed).tolist()  # 10 in binary; nothing; both 0 and 1 in the lowest bit
        [2, -1, -2]
    """
    ones, zeros = np.split(changed, 2)
    places = (1 << np.arange(len(ones))).reshape(-1, *[1] * (changed.ndim - 1))
    codes = (ones * places).sum(axis=0)
    codes[(ones == zeros).any(axis=0)] = MIXED
    codes[~changed.any(axis=0)] = NONE
    return codes


def channel_axis(codes: np.ndarray, preferred: int) -> int:
    """Return the axis along which channels can be taken away.

    That is an axis whose slices hold one channel each, or, if there is none - channels that are
    spread over several axes -, the one that leaves most units when those in a slice are united.

    Args:
        codes: integer array: the unit of each element, negative where there is none.
        preferred: the axis to take where several are as good.

    Example:
        >>> channel_axis(np.array([[0, 1, 2], [0, 1, 2]]), preferred=0)
        1
    """
    axes = [preferred, *(axis for axis in reversed(range(codes.ndim)) if axis != preferred)]
    for axis in axes:
        low, high = _bounds(codes, axis)
        if np.all((low == high) | (high < 0)):
            return axis
    return max(axes, key=lambda axis: len(np.unique(slice_units(codes, axis)[1])))


def slice_units(codes: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what must be united for each slice along an axis to be of one unit.

    Args:
        codes: integer array of units, negative where an element has none.
        axis: the axis.

    Returns:
        Integer array `(pairs, 2)` of units to unite, and the unit of each slice, as one of the
        numbers in `codes`: equal numbers are one unit then. Slices without any have `NONE`.

    Example:
        >>> pairs, units = slice_units(np.array([[0, 1], [2, 2], [-1, -1]]), axis=0)
        >>> pairs.tolist(), units.tolist()
        ([[0, 1]], [0, 2, -1])
    """
    low, high = _bounds(codes, axis)
    units = np.where(high < 0, NONE, low)
    if np.array_equal(low[high >= 0], high[high >= 0]):
        return np.zeros((0, 2), np.int64), units
    rows = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1)
    pairs = np.stack(np.broadcast_arrays(low[:, None], rows), axis=-1).reshape(-1, 2)
    pairs = np.unique(pairs[(pairs[:, 1] >= 0) & (pairs[:, 0] != pairs[:, 1])], axis=0)
    parents: dict[int, int] = {}

    def root(unit: int) -> int:
        while parents.setdefault(unit, unit) != unit:
            unit = parents[unit]
        return unit

    for one, other in pairs.tolist():
        parents[root(other)] = root(one)
    return pairs, np.array([NONE if unit < 0 else root(unit) for unit in units.tolist()], np.int64)


def _bounds(codes: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest unit in each slice along an axis."""
    rows = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1)
    high = rows.max(axis=1, initial=NONE)
    low = np.where(rows < 0, np.iinfo(np.int64).max, rows).min(axis=1)
    return low, high

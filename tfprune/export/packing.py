"""Packing: an array in few bytes, so that stock TensorFlow ops can unpack it.

Where the values are and what they are is stored apart, each in the form that takes fewer bytes:

| positions | stored |
|---|---|
| `all` | nothing: zeros are among the values |
| `mask` | one bit per element |
| `gaps` | one byte per value, the zeros before it; 255 stands for 255 zeros and no value |

| values | stored |
|---|---|
| `planes` | the first bytes of all values, then the second ones, ... |
| `codebook` | one byte per value, an index into at most 256 values |

Each stream is deflated on its own. The bits of floats are first turned left by one, so that one
byte plane holds the whole exponent: that is the one which compresses. Everything is bit-exact, -0.0
and NaN included.

Gaps, codebooks and entropy coding of weights are those of Han et al. (2016), "Deep Compression".
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfprune.errors import InvalidArgumentError

SKIP = 255
"""The gap that stands for so many zeros without a value behind them."""

_CODEBOOK_SIZE = 256
_SAMPLE_BYTES = 1 << 16
_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)
# Rare zeros cost less among the values than their positions do.
_RARE_ZEROS = 0.02


@dataclass(frozen=True)
class PackedArray:
    """An array in packed form.

    Args:
        shape: shape of the array.
        dtype: name of its dtype.
        positions: `"all"`, `"mask"` or `"gaps"`.
        values: `"planes"` or `"codebook"`.
        streams: deflated bytes: positions unless `"all"`; then planes, or indices and codebook.
    """

    shape: tuple[int, ...]
    dtype: str
    positions: str
    values: str
    streams: tuple[bytes, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all streams."""
        return sum(map(len, self.streams))


def choose_form(array: np.ndarray) -> tuple[str, str]:
    """Return the positions and the values that an array takes fewest bytes in."""
    bits = _bits(array)
    if bits.dtype.itemsize > 1 and _codebook(bits) is not None:
        # An index is a byte, and so are the zeros among them.
        return "all", "codebook"
    kept = np.flatnonzero(bits)
    if kept.size >= bits.size * (1 - _RARE_ZEROS):
        return "all", "planes"
    gaps, mask = (len(_deflated(form)) for form in (_gaps(kept), np.packbits(bits != 0)))
    # Gaps are unpacked in a third of the time.
    return "gaps" if gaps < 1.05 * mask else "mask", "planes"


def pack(array: np.ndarray, form: tuple[str, str] | None = None) -> PackedArray:
    """Pack an array of floats or integers, of 1, 2, 4 or 8 bytes per element.

    Args:
        array: the array.
        form: positions and values, by default those of `choose_form`.

    Raises:
        InvalidArgumentError: a codebook is asked for, and the values are too many.

    Example:
        >>> packed = pack(np.float32([0, 0, 1.5, 0]))
        >>> unpack(packed).tolist()
        [0.0, 0.0, 1.5, 0.0]
    """
    positions, values = form or choose_form(array)
    bits = _bits(array)
    streams = []
    if positions != "all":
        kept = np.flatnonzero(bits)
        streams.append(_deflated(_gaps(kept) if positions == "gaps" else np.packbits(bits != 0)))
        bits = bits[kept]
    if values == "codebook":
        codebook = _codebook(bits)
        if codebook is None:
            raise InvalidArgumentError(
                f"A codebook holds at most {_CODEBOOK_SIZE} values, and this array of the shape "
                f"{array.shape} has more: pack it as planes."
            )
        streams.append(_deflated(np.searchsorted(codebook, bits).astype(np.uint8)))
        streams.append(_deflated(codebook))
    else:
        turned = _rotated(bits, array.dtype)
        streams.extend(map(_deflated, turned.view(np.uint8).reshape(-1, bits.itemsize).T))
    return PackedArray(array.shape, array.dtype.name, positions, values, tuple(streams))


def unpack(packed: PackedArray) -> np.ndarray:
    """Return the array of a packed array.

    Raises:
        ValueError, IndexError, zlib.error: the streams are not what `pack` made.
    """
    streams = map(zlib.decompress, packed.streams)
    size, dtype = math.prod(packed.shape), np.dtype(packed.dtype)
    if packed.positions == "all":
        return _unpacked_values(packed, streams, dtype).reshape(packed.shape)
    codes = np.frombuffer(next(streams), np.uint8)
    if packed.positions == "mask":
        kept = np.flatnonzero(np.unpackbits(codes, count=size))
    else:
        is_value = codes != SKIP
        kept = np.cumsum(codes + is_value.astype(np.int64))[is_value] - 1
    flat = np.zeros(size, dtype)
    flat[kept] = _unpacked_values(packed, streams, dtype)
    return flat.reshape(packed.shape)


def quantize(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 codes and float32 scales, one per output channel, with array = codes * scales.

    Output channels come last; depthwise kernels have one per input channel before that.

    Example:
        >>> codes, scales = quantize(np.float32([[1.0, 0.0], [-2.54, 0.0]]))
        >>> codes.tolist(), scales.shape
        ([[50, 0], [-127, 0]], (1, 2))
    """
    channels = {array.ndim - 1} if array.shape[-1] > 1 else {array.ndim - 2, array.ndim - 1}
    axes = tuple(axis for axis in range(array.ndim) if axis not in channels)
    scales = np.abs(array).max(axis=axes, keepdims=True) / np.float32(127)
    scales[scales == 0] = 1
    return np.rint(array / scales).astype(np.int8), scales


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(f"u{array.dtype.itemsize}")


def _rotated(bits: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Turn the bits of floats left by one."""
    if dtype.kind != "f":
        return bits
    one, rest = bits.dtype.type(1), bits.dtype.type(8 * bits.dtype.itemsize - 1)
    return (bits << one) | (bits >> rest)


def _rotated_back(bits: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind != "f":
        return bits
    one, rest = bits.dtype.type(1), bits.dtype.type(8 * bits.dtype.itemsize - 1)
    return (bits >> one) | (bits << rest)


def _gaps(kept: np.ndarray) -> np.ndarray:
    zeros = np.diff(kept, prepend=-1) - 1
    skips, rest = np.divmod(zeros, SKIP)
    last = np.cumsum(skips + 1) - 1
    gaps = np.full(last[-1] + 1 if kept.size else 0, SKIP, np.uint8)
    gaps[last] = rest
    return gaps


def _codebook(bits: np.ndarray) -> np.ndarray | None:
    """Return the different values, ascending, or None if they are more than a codebook holds."""
    # A look at some of them spares most arrays the sorting.
    if np.unique(bits[: 16 * _CODEBOOK_SIZE]).size > _CODEBOOK_SIZE:
        return None
    codebook = np.unique(bits)
    return codebook if codebook.size <= _CODEBOOK_SIZE else None


def _unpacked_values(packed: PackedArray, streams: Iterator[bytes], dtype: np.dtype) -> np.ndarray:
    bits = f"u{dtype.itemsize}"
    if packed.values == "codebook":
        indices = np.frombuffer(next(streams), np.uint8)
        return np.frombuffer(next(streams), bits)[indices].view(dtype)
    planes = [np.frombuffer(next(streams), np.uint8) for _ in range(dtype.itemsize)]
    values = np.stack(planes, axis=1).reshape(-1).view(bits)
    return _rotated_back(values, dtype).view(dtype)


def _deflated(array: np.ndarray) -> bytes:
    data = np.ascontiguousarray(array).tobytes()
    # Noise has no repetitions, and looking for them takes ten times as long: a sample decides.
    sample = data[:_SAMPLE_BYTES]
    strategy = min(_STRATEGIES, key=lambda strategy: len(_deflate(sample, strategy)))
    return _deflate(data, strategy)


def _deflate(data: bytes, strategy: int) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
    return compressor.compress(data) + compressor.flush()

"""Packing: an array in few bytes, so that stock TensorFlow ops can unpack it.

Where the values are and what they are is stored apart, each in the form that takes fewer bytes:

| positions | stored |
|---|---|
| `all` | nothing: zeros are among the values |
| `mask` | one bit per element |
| `gaps` | one byte per value, how far it is from the one before; 255: go on so far, no value |

| values | stored |
|---|---|
| `planes` | the highest bytes of all values, the second ones, then words of 2 and 4 bytes |
| `codebook` | one byte per value, an index into at most 256 values |

The highest 16 bits of floats are first turned left by one, so that the first plane holds the whole
exponent: that is the one which compresses. Each stream is deflated on its own; planes that gain
little by it are raw, as noise is not worth the time of inflating it, and known by their length.
Everything is bit-exact, -0.0 and NaN included.

Gaps, codebooks and entropy coding of weights are those of Han et al. (2016), "Deep Compression".
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfprune.errors import InvalidArgumentError

SKIP = 255
"""The step that leads to no value."""

WORDS = {1: (1,), 2: (1, 1), 4: (1, 1, 2), 8: (1, 1, 2, 4)}
"""Bytes of the words that values are stored in, highest first, by the size of a value. Each is as
long as all before it, so that a value is put together by doubling."""

_CODEBOOK_SIZE = 256
_USES_PER_CODE = 4
_SAMPLE_BYTES = 1 << 16
_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)
# Inflating takes ten times as long as reading does.
_WORTH_INFLATING = 15 / 16
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
        count: how many values are stored.
        streams: positions unless `"all"`; then planes, or indices and codebook. Deflated; see
            `is_raw`.
    """

    shape: tuple[int, ...]
    dtype: str
    positions: str
    values: str
    count: int
    streams: tuple[bytes, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all streams."""
        return sum(map(len, self.streams))


def choose_form(array: np.ndarray) -> tuple[str, str]:
    """Return the positions and the values that an array takes fewest bytes in."""
    bits = _bits(array)
    kept = np.flatnonzero(bits)
    codebook = _codebook(bits) if bits.dtype.itemsize > 1 else None
    # A few values that are all different are no codebook.
    if codebook is not None and _USES_PER_CODE * codebook.size <= kept.size:
        # An index is a byte, and so are the zeros among them.
        return "all", "codebook"
    if kept.size >= bits.size * (1 - _RARE_ZEROS):
        return "all", "planes"
    gaps, mask = (len(_deflated(form)) for form in (_gaps(kept), np.packbits(bits != 0)))
    # Gaps are unpacked faster.
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
        for word in _words(bits, array.dtype):
            deflated = _deflated(word)
            worth_it = len(deflated) < _WORTH_INFLATING * word.nbytes
            streams.append(deflated if worth_it else word.tobytes())
    return PackedArray(array.shape, array.dtype.name, positions, values, bits.size, tuple(streams))


def unpack(packed: PackedArray) -> np.ndarray:
    """Return the array of a packed array.

    Raises:
        ValueError, IndexError, zlib.error: the streams are not what `pack` made.
    """
    streams = iter(packed.streams)
    size, dtype = math.prod(packed.shape), np.dtype(packed.dtype)
    if packed.positions == "all":
        return _unpacked_values(packed, streams).reshape(packed.shape)
    codes = np.frombuffer(zlib.decompress(next(streams)), np.uint8)
    if packed.positions == "mask":
        kept = np.flatnonzero(np.unpackbits(codes, count=size))
    else:
        kept = np.cumsum(codes, dtype=np.int64)[codes != SKIP] - 1
    flat = np.zeros(size, dtype)
    flat[kept] = _unpacked_values(packed, streams)
    return flat.reshape(packed.shape)


def is_raw(stream: bytes, count: int, size: int) -> bool:
    """Whether a stream of `count` words of `size` bytes is not deflated."""
    return len(stream) == count * size


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


def _words(bits: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield the words of all values, highest first."""
    shift = 8 * dtype.itemsize
    if dtype.kind == "f":
        rest = shift - 16
        upper = bits >> rest
        turned = ((upper << 1) | (upper >> 15)) & 0xFFFF
        bits = (turned << rest) | (bits & ((1 << rest) - 1))
    for size in WORDS[dtype.itemsize]:
        shift -= 8 * size
        yield (bits >> shift).astype(f"u{size}")


def _from_words(words: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    bits, *lower = words
    for word in lower:
        bits = (bits.astype(f"u{2 * word.itemsize}") << (8 * word.itemsize)) | word
        if bits.itemsize == 2 and dtype.kind == "f":
            bits = (bits >> 1) | (bits << 15)
    return bits.view(dtype)


def _gaps(kept: np.ndarray) -> np.ndarray:
    skips, steps = np.divmod(np.diff(kept, prepend=-1), SKIP)
    last = np.cumsum(skips + 1) - 1
    gaps = np.full(last[-1] + 1 if kept.size else 0, SKIP, np.uint8)
    gaps[last] = steps
    return gaps


def _codebook(bits: np.ndarray) -> np.ndarray | None:
    """Return the different values, ascending, or None if they are more than a codebook holds."""
    # A look at some of them spares most arrays the sorting.
    if np.unique(bits[: 16 * _CODEBOOK_SIZE]).size > _CODEBOOK_SIZE:
        return None
    codebook = np.unique(bits)
    return codebook if codebook.size <= _CODEBOOK_SIZE else None


def _unpacked_values(packed: PackedArray, streams: Iterator[bytes]) -> np.ndarray:
    dtype = np.dtype(packed.dtype)
    if packed.values == "codebook":
        indices, codebook = map(zlib.decompress, streams)
        return np.frombuffer(codebook, dtype)[np.frombuffer(indices, np.uint8)]
    words = []
    for data, size in zip(streams, WORDS[dtype.itemsize], strict=True):
        octets = data if is_raw(data, packed.count, size) else zlib.decompress(data)
        words.append(np.frombuffer(octets, f"u{size}"))
    return _from_words(words, dtype)


def _deflated(array: np.ndarray) -> bytes:
    data = np.ascontiguousarray(array).tobytes()
    # Noise has no repetitions, and looking for them takes ten times as long: a sample decides.
    sample = data[:_SAMPLE_BYTES]
    strategy = min(_STRATEGIES, key=lambda strategy: len(_deflate(sample, strategy)))
    return _deflate(data, strategy)


def _deflate(data: bytes, strategy: int) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
    return compressor.compress(data) + compressor.flush()

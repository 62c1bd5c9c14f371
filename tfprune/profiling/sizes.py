"""Counts and bytes of weight tensors, one tensor in memory at a time.

gzip is fed tensor by tensor, and zlib reads the array's own memory: a 100 MB model is never held
twice. Level 6 takes about 4 s per 100 MB of float32 on one core, hence the switch.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

_CHUNK = 1 << 20


@dataclass(frozen=True)
class TensorSize:
    """Counts of one tensor.

    Attributes:
        size: number of values.
        nonzeros: number of values that are not zero; NaN is not zero, -0.0 is.
        dense: bytes in the stored dtype.
    """

    size: int
    nonzeros: int
    dense: int

    @property
    def sparse(self) -> int:
        """Bytes of a bit per position and the non-zero values, never more than `dense`."""
        if not self.size:
            return 0
        return min(self.dense, -(-self.size // 8) + self.nonzeros * (self.dense // self.size))


class GzipSize:
    """Length of a gzip stream, without keeping the stream."""

    def __init__(self):
        # wbits 31: a gzip header and trailer around the deflate stream.
        self._compressor = zlib.compressobj(level=6, wbits=31)
        self._length = 0

    def add(self, array: np.ndarray) -> None:
        """Append the bytes of an array.

        Args:
            array: C-contiguous array of any dtype.
        """
        # Seen as bytes first: bfloat16 and float8 arrays have no buffer format of their own.
        data = memoryview(array.reshape(-1).view(np.uint8))
        for start in range(0, len(data), _CHUNK):
            self._length += len(self._compressor.compress(data[start : start + _CHUNK]))

    def finish(self) -> int:
        """Close the stream and return its length in bytes."""
        return self._length + len(self._compressor.flush())


def measure_weights(
    weights: Iterable[Any], weight_masks: dict[int, Any], *, gzip: bool
) -> tuple[dict[int, TensorSize], int | None]:
    """Count values, non-zeros and bytes of every weight.

    Args:
        weights: Keras variables, each once.
        weight_masks: boolean variable by `id` of the weight that it masks.
        gzip: whether to compress the weights as well.

    Returns:
        The sizes by `id` of the weight, and the bytes of all weights after gzip (None without).
    """
    stream = GzipSize() if gzip else None
    sizes = {}
    for weight in weights:
        array = np.ascontiguousarray(weight.numpy())
        if id(weight) in weight_masks:
            keep = np.asarray(weight_masks[id(weight)].numpy(), bool)
            array = np.where(keep, array, np.zeros((), array.dtype))
        sizes[id(weight)] = TensorSize(array.size, int(np.count_nonzero(array)), array.nbytes)
        if stream is not None and array.size:
            stream.add(array)
    return sizes, None if stream is None else stream.finish()

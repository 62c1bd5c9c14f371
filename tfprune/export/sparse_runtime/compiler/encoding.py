"""The sparse encoding of TFLite: rows of non-zeros (CSR), as the converter writes it.

All axes but the last are dense; along the last, each row stores where its values are. Indices take
as few bytes as the largest needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_DENSE, _CSR = 0, 1


def encode(values: np.ndarray) -> tuple[np.ndarray, Any]:
    """Encode an array.

    Args:
        values: the dense array; non-zeros are kept.

    Returns:
        The non-zero values, flat, and their `SparsityParametersT`.

    Example:
        >>> encode(np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]]))[0]
        array([2., 1., 3.])
    """
    from ai_edge_litert import schema_py_generated as schema

    rows = values.reshape(-1, values.shape[-1])
    counts = np.count_nonzero(rows, axis=1)
    segments = np.concatenate([[0], np.cumsum(counts)])
    indices = np.nonzero(rows)[1]
    segment_type, segment_vector = _vector(segments)
    index_type, index_vector = _vector(indices)
    axes = [schema.DimensionMetadataT(format=_DENSE, denseSize=n) for n in values.shape[:-1]]
    last = schema.DimensionMetadataT(
        format=_CSR,
        arraySegmentsType=segment_type,
        arraySegments=segment_vector,
        arrayIndicesType=index_type,
        arrayIndices=index_vector,
    )
    order = np.arange(values.ndim, dtype=np.int32)
    parameters = schema.SparsityParametersT(order, np.zeros(0, np.int32), [*axes, last])
    return rows[rows != 0], parameters


def decode(stored: np.ndarray, shape: tuple[int, ...], parameters: Any) -> np.ndarray | None:
    """Return the dense array, or None if it is encoded in another way than `encode` does."""
    *axes, last = parameters.dimMetadata
    order = list(parameters.traversalOrder)
    dense_axes = all(axis.format == _DENSE for axis in axes)
    if order != list(range(len(shape))) or not dense_axes or last.format != _CSR:
        return None
    segments, indices = (
        np.asarray(vector.values, np.int64) for vector in (last.arraySegments, last.arrayIndices)
    )
    values = np.zeros(shape, stored.dtype)
    rows = np.repeat(np.arange(len(segments) - 1), np.diff(segments))
    values.reshape(-1, shape[-1])[rows, indices] = stored
    return values


def _vector(numbers: np.ndarray) -> tuple[int, Any]:
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.SparseIndexVector
    largest = int(numbers.max(initial=0))
    if largest < 1 << 8:
        return kinds.Uint8Vector, schema.Uint8VectorT(numbers.astype(np.uint8))
    if largest < 1 << 16:
        return kinds.Uint16Vector, schema.Uint16VectorT(numbers.astype(np.uint16))
    return kinds.Int32Vector, schema.Int32VectorT(numbers.astype(np.int32))

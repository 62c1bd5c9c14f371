"""Depthwise convolutions of any window as those of 3x3 and 5x5 that sparse mode has."""

from __future__ import annotations

import numpy as np

from tfprune.export.sparse_runtime.compiler.emitter import NONE, Emitter
from tfprune.export.sparse_runtime.compiler.program import Pads, Tensor

_REACH = 2


def depthwise(
    emitter: Emitter,
    x: Tensor,
    kernel: np.ndarray,
    bias: np.ndarray,
    *,
    activation: int,
    stride: int,
    pads: Pads,
) -> Tensor:
    """Compute a depthwise convolution.

    A window that lies unevenly is put into a larger one. One that is larger than 5x5 is cut into
    pieces, each of which reads a shifted map; a piece lies on the side that the map is shifted to,
    so that no value is dropped by the shift that the piece would see.

    Args:
        emitter: takes the operators.
        x: the map.
        kernel: array (rows, columns, channels of the output); those of `x` are repeated for each
            of the outputs that they have.
        bias: array (channels of the output,).
        activation: the fused activation.
        stride: 1 or 2.
        pads: zeros around the map.
    """
    channels = x.shape[3]
    multiplier = kernel.shape[2] // channels
    if multiplier > 1:
        x = emitter.pointwise(x, np.repeat(np.eye(channels, dtype=np.float32), multiplier, axis=0))
    (top, _), (left, _) = pads
    pieces: dict[tuple[int, int], dict[tuple[int, int], np.ndarray]] = {}
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            near, far = zip(*(_split(n) for n in (row - top, column - left)), strict=True)
            pieces.setdefault(far, {})[near] = kernel[row, column]
    terms = []
    for number, (far, taps) in enumerate(pieces.items()):
        half = max(1, *(abs(n) for offset in taps for n in offset))
        window = np.zeros((2 * half + 1, 2 * half + 1, kernel.shape[2]), np.float32)
        for (row, column), values in taps.items():
            window[half + row, half + column] = values
        terms.append(
            emitter.depthwise(
                emitter.tap(x, *far),
                window,
                stride,
                bias if number == 0 else None,
                activation if len(pieces) == 1 else NONE,
            )
        )
    return emitter.total(terms, activation)


def _split(offset: int) -> tuple[int, int]:
    """Split an offset into what a 5x5 window reaches, and the rest."""
    near = int(np.clip(offset, -_REACH, _REACH))
    return near, offset - near

"""Float TFLite files for XNNPACK's sparse mode, which phones and browsers have.

A model is converted once, and the file compiled for that mode (`sparse_runtime/compiler`). Where
that is not possible, or not predicted to gain, the file stays as it was converted, dense, with the
reason. A file that the static rules do not pass is never sparse-encoded: it may be right on x86 and
compute garbage on a phone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tfprune.errors import UnsupportedModelError
from tfprune.export.formats import Source
from tfprune.export.sparse_runtime.compiler import Compiled, compile_file
from tfprune.export.sparse_runtime.compiler.verify import TOLERANCE, difference, excess_pieces
from tfprune.export.sparse_runtime.graph import parse_graph

# Filters with fewer zeros than this do not pay for sparse mode at any size.
_FEW = 0.5

Convert = Callable[..., bytes]


def write_for_sparse_mode(source: Source, path: Path, convert: Convert) -> str:
    """Write a model for sparse mode, or a dense file; return which and why.

    Args:
        source: the model; its `sparse_runtime` is not `"off"`.
        path: the file to write.
        convert: converts a SavedModel at a path.

    Raises:
        UnsupportedModelError: it cannot run sparse, and `source.sparse_runtime` is `"on"`.
    """
    dense = convert(source.saved_model)
    path.write_bytes(dense)
    insists = source.sparse_runtime == "on"
    if not insists and not _has_zeros(dense):
        return ""  # There is nothing to gain, and nothing to tell.
    try:
        compiled = compile_file(dense, eager=insists)
        _check(dense, compiled.content)
    except UnsupportedModelError as error:
        if insists:
            raise UnsupportedModelError(
                f"{source.model.name!r} cannot be written for XNNPACK's sparse mode: {error}. With "
                '`sparse_runtime="auto"` it is written dense.'
            ) from error
        return f"Written dense: {error}."
    path.write_bytes(compiled.content)
    return _told(compiled)


def _check(dense: bytes, compiled: bytes) -> None:
    if excess_pieces(compiled):
        raise UnsupportedModelError("XNNPACK here does not run operators that sparse mode needs")
    apart = difference(dense, compiled)
    if not apart <= TOLERANCE:
        raise UnsupportedModelError(
            "it amplifies rounding: with sums in another order its outputs differ by "
            f"{apart:.1g} of the largest one"
        )


def _has_zeros(content: bytes) -> bool:
    """Whether a convolution of a file has zeros enough in its filter to be worth a thought."""
    graph = parse_graph(content)
    filters = [op.inputs[1] for op in graph.operators if op.name == "CONV_2D"]
    counts = [graph.zeros(tensor) for tensor in filters if graph.constant(tensor) is not None]
    return any(zeros > _FEW * size for zeros, size in counts)


def _told(compiled: Compiled) -> str:
    """Say what was made, in a line of a report."""
    turned = "Turned by 180 degrees, it" if compiled.is_turned else "It"
    return f"{turned} {compiled.report.verdict}; predicted there: {compiled.gain:.1f}x as fast."

"""`fix_file`: a `.tflite` file of anyone's making, made to run in sparse mode."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tfprune.errors import ArtifactError, UnsupportedModelError, VerificationError
from tfprune.export.sparse_runtime.check import SparseRuntimeReport, check_file
from tfprune.export.sparse_runtime.compiler import CostModel, compile_file
from tfprune.export.sparse_runtime.compiler.costs import WASM
from tfprune.export.sparse_runtime.compiler.reading import read_program
from tfprune.export.sparse_runtime.compiler.verify import TOLERANCE, difference, excess_pieces
from tfprune.export.sparse_runtime.compiler.writing import write_program


@dataclass(frozen=True)
class Fixed:
    """What became of a file.

    Args:
        report: what the rules say of the file that was written.
        note: what was done, in a sentence.
        max_difference: how far outputs are from those of the original, over the largest one.
    """

    report: SparseRuntimeReport
    note: str
    max_difference: float


def fix_file(
    path: str | os.PathLike, target: str | os.PathLike, *, costs: CostModel = WASM
) -> Fixed:
    """Write a file that computes the same and runs in sparse mode.

    A file that is a trap and cannot be brought there is written dense, which is right everywhere.

    Args:
        path: the file; it is left as it is.
        target: the file to write.
        costs: what decides which layers run sparse.

    Raises:
        ArtifactError: the file cannot be read, or the target not be written.
        UnsupportedModelError: it cannot run sparse or would not gain, and is no trap.
        VerificationError: the new file computes something else, which is a bug.
    """
    traps = check_file(path).traps
    content = Path(path).read_bytes()
    try:
        compiled = compile_file(content, costs=costs)
        if excess_pieces(compiled.content):
            raise UnsupportedModelError("XNNPACK here does not run operators that it needs")
        written = compiled.content
        note = f"{compiled.report.verdict}; predicted there: {compiled.gain:.1f}x as fast"
    except UnsupportedModelError as error:
        if not traps:
            raise UnsupportedModelError(f"{path} is best left as it is: {error}.") from error
        written = write_program(read_program(content))
        note = f"written dense, which is right everywhere: {error}"
    apart = difference(content, written)
    if not apart <= TOLERANCE:
        raise VerificationError(
            f"The fixed file computes something else than {path} (a difference of {apart:.1g} of "
            "the largest output), so it was not written. This is a bug of tfprune."
        )
    _write(Path(target), written)
    return Fixed(check_file(target), note, apart)


def _write(target: Path, content: bytes) -> None:
    aside = target.with_name(f".{target.name}.part")
    try:
        aside.write_bytes(content)
        aside.replace(target)
    except OSError as error:
        raise ArtifactError(f"Cannot write {target}: {error}") from error

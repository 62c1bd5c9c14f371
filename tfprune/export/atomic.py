"""Replacing a folder by a new one so that a complete set of files is reachable at every moment.

A folder cannot be renamed onto a full folder, so the swap takes several steps, and each of them
leaves a state that `recover`, which every export runs first, can finish. Beside the target `build`
there may lie, while an export runs or after one was killed:

- `.build.tfprune-staging`: being written, or being thrown away. Always safe to delete.
- `.build.tfprune-ready`: a complete set about to become `build`; or, once the two were exchanged,
  the former `build`.
- `.build.tfprune-old`: the former `build`, where the system cannot exchange two folders at once.
- `.build.tfprune-lock`: the lock that makes two exports to one folder take turns.

Files in the target that no export wrote are never deleted: they move along into the new folder.
"""

import contextlib
import ctypes
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from tfprune.errors import ArtifactError

REPORT_FILE = "report.json"
SCHEMA_KEY = "tfprune_export"

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def replacing(directory: str | os.PathLike, names: Iterable[str]) -> Iterator[Path]:
    """Yield an empty folder that replaces `directory` when the block ends without an error.

    When the block raises, or the process dies at any moment, the former content of `directory`
    is intact. Two processes that replace the same folder take turns.

    Args:
        directory: the folder to create or replace; missing parents are created.
        names: the entries that the block will write, `report.json` among them. That file lists
            what an export wrote, and so what a later one may replace.

    Yields:
        The folder to write into.

    Raises:
        ArtifactError: the folder cannot be written or replaced, or an entry of `names` exists
            there that no export wrote.

    Example:
        >>> import pathlib, tempfile
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "build"
        >>> with replacing(target, ["model.tflite", "report.json"]) as folder:
        ...     _ = (folder / "model.tflite").write_bytes(b"...")
        ...     _ = (folder / "report.json").write_text('{"tfprune_export": 1, "artifacts": []}')
        >>> sorted(path.name for path in target.iterdir())
        ['model.tflite', 'report.json']
    """
    target = Path(os.path.realpath(directory))
    try:
        _check_target(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            _recover(target)
            _check_names(target, names)
            staging = _beside(target, "staging")
            staging.mkdir()
            try:
                yield staging
                _publish(staging, target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(
            f"Cannot write the export folder {target}: {error}. What it held before is intact; "
            "pass a folder that this process may create and rename."
        ) from error


def recover(directory: str | os.PathLike) -> None:
    """Finish or undo an export that was killed; do nothing where there is none.

    Every export does this first; call it to have the folder back without exporting again.

    Args:
        directory: the folder that was exported to.

    Raises:
        ArtifactError: a file cannot be put back because its name was taken meanwhile.
    """
    target = Path(os.path.realpath(directory))
    if target.parent.is_dir():
        with _locked(target):
            _recover(target)


def owned_names(folder: Path) -> set[str]:
    """Return the entries of `folder` that an export wrote, by its `report.json`."""
    try:
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        if SCHEMA_KEY not in report:
            return set()
        return {REPORT_FILE, *(str(artifact["file"]) for artifact in report["artifacts"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()  # No report, or somebody else's: then nothing here is ours to replace.


def _beside(target: Path, role: str) -> Path:
    return target.with_name(f".{target.name}.tfprune-{role}")


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise ArtifactError(f"{target} is a file; pass the path of a folder to export to.")
    if target == Path(os.path.realpath(".")) or target in Path(os.path.realpath(".")).parents:
        raise ArtifactError(
            f"{target} is the working directory or holds it, and an export replaces its folder as "
            f"a whole; pass a folder inside it, such as {target / 'build'}."
        )
    if os.path.ismount(target):
        raise ArtifactError(
            f"{target} is a mount point, which cannot be renamed; pass a folder inside it, such as "
            f"{target / 'build'}."
        )
    if target.is_dir() and not os.access(target, os.W_OK | os.X_OK):
        raise ArtifactError(f"{target} is not writable; change its permissions or pass another.")


def _check_names(target: Path, names: Iterable[str]) -> None:
    taken = sorted(
        name for name in set(names) - owned_names(target) if os.path.lexists(target / name)
    )
    if taken:
        raise ArtifactError(
            f"{target} holds {', '.join(taken)}, which no export of tfprune wrote. Move it away or "
            "pass another folder; nothing was changed."
        )


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    path = _beside(target, "lock")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("Waiting for another export to %s to finish.", target)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The former holder removes the file: a lock on a removed file locks nobody out.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _recover(target: Path) -> None:
    shutil.rmtree(_beside(target, "staging"), ignore_errors=True)
    for leftover in (_beside(target, "old"), _beside(target, "ready")):
        if not leftover.is_dir():
            continue
        if target.exists():
            _retire(leftover, target)
        else:
            # Only without an exchange call is there a moment without a target. "old" comes first:
            # it holds the former set and everything that moves along.
            os.rename(leftover, target)
    _sync(target.parent)


def _publish(staging: Path, target: Path) -> None:
    for folder, _, files in os.walk(staging):
        for name in files:
            _sync(Path(folder, name))
        _sync(Path(folder))
    if not target.exists():
        os.rename(staging, target)
    else:
        shutil.copymode(target, staging)
        ready, old = _beside(target, "ready"), _beside(target, "old")
        os.rename(staging, ready)
        if _exchange(ready, target):
            old = ready
        else:
            os.rename(target, old)
            os.rename(ready, target)
        _sync(target.parent)
        _retire(old, target)
    _sync(target.parent)


def _retire(former: Path, target: Path) -> None:
    """Move what no export wrote from `former` into `target`, then delete `former`."""
    owned = owned_names(former)
    for entry in sorted(former.iterdir()):
        if entry.name in owned:
            continue
        if os.path.lexists(target / entry.name):
            raise ArtifactError(
                f"An interrupted export left {entry}, and {target / entry.name} was created since. "
                "Move one of the two away and export again; nothing was deleted."
            )
        os.rename(entry, target / entry.name)
    # Without its report.json a half-deleted folder would look like files of the user. Under this
    # name it is garbage, whatever is left in it.
    garbage = _beside(target, "staging")
    os.rename(former, garbage)
    shutil.rmtree(garbage, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one system call; return False where there is no such call."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    done = renameat2(
        _AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE
    )
    return done == 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

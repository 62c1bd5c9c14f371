"""Where runtimes that tfprune sets up are kept, and how: whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tfprune.errors import ArtifactError, MissingDependencyError


def cache_folder() -> Path:
    """Return the folder for runtimes.

    The variable `TFPRUNE_CACHE` may name it; else it is below `XDG_CACHE_HOME`, or `~/.cache`.
    """
    if named := os.environ.get("TFPRUNE_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "tfprune", "runtimes")


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path | None]:
    """Yield an empty folder that becomes `target` once the block has filled it.

    One process at a time fills it. Yields None if it is there already, and removes what is left of
    an attempt that was cut.

    Args:
        target: the folder; its parents are made.

    Raises:
        ArtifactError: the cache cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_suffix(".lock").open("w")
    except OSError as error:
        raise ArtifactError(f"Cannot write to {target.parent}: {error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in target.parent.glob(f".{target.name}.*"):
            shutil.rmtree(left_over, ignore_errors=True)
        if target.is_dir():
            yield None
            return
        with tempfile.TemporaryDirectory(
            prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True
        ) as folder:
            made = Path(folder, "made")
            made.mkdir()
            yield made
            made.rename(target)


def run_tool(
    command: list[str], purpose: str, environment: Mapping[str, str] | None = None
) -> None:
    """Run a tool of the system.

    Args:
        command: the program and its arguments.
        purpose: what it is to do, for the error.
        environment: further environment variables.

    Raises:
        MissingDependencyError: it is not installed, or fails; the message has its last lines.
    """
    try:
        process = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise MissingDependencyError(
            f"Cannot {purpose}: {command[0]} is not installed ({error.strerror})."
        ) from error
    if process.returncode:
        lines = (process.stderr.strip() or process.stdout.strip()).splitlines()
        raise MissingDependencyError(
            f"Cannot {purpose}: {Path(command[0]).name} failed, with {' | '.join(lines[-3:])} "
            "(This step needs network access.)"
        )

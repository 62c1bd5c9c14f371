"""What the benchmarks share: resumable result files, machine and versions, worker processes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from tfprune._version import __version__

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SCRATCH = ROOT / "build" / "benchmarks"
"""Where trial runs and what is not worth a commit go; ignored by git."""
PEERS = ("tensorflow-model-optimization", "keras", "tf_keras", "tensorflow", "numpy")


def environment(packages: tuple[str, ...] = PEERS) -> dict[str, str]:
    """Describe the machine and the versions of packages, as strings for a table."""
    return {"machine": _machine(), "versions": _versions(packages)}


def command() -> str:
    """Return the command that started this benchmark, as a user would type it."""
    options = "".join(f" {argument}" for argument in sys.argv[1:])
    module = sys.modules["__main__"].__spec__.name
    return f"python -m {module}{options}"


def read_rows(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the finished cells of a run, to continue it.

    Args:
        path: JSON lines file; may not exist yet.
        settings: what the run was asked for; every row must have been made with the same.

    Returns:
        One dict per finished cell.

    Raises:
        SystemExit: if the file holds cells of other settings.
    """
    if not path.exists():
        return []
    text = path.read_text()
    whole_lines = text[: text.rfind("\n") + 1]
    if whole_lines != text:  # A cut run may leave half a line.
        path.write_text(whole_lines)
    rows = [json.loads(line) for line in whole_lines.splitlines()]
    if any(row["settings"] != settings for row in rows):
        raise SystemExit(
            f"{path} holds cells of other settings: delete it to start over.\nExpected {settings}"
        )
    return rows


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append one finished cell to a JSON lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def run_worker(module: str, *arguments: str) -> None:
    """Run `python -m module arguments` in a process of its own and wait for it.

    Raises:
        SystemExit: if the worker fails; the cells that it finished stay.
    """
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    worker = [sys.executable, "-m", module, *arguments]
    if subprocess.run(worker, env=environ, cwd=ROOT, check=False).returncode:
        raise SystemExit(f"{' '.join(worker[1:])} failed; run again to continue from here.")


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Format a table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {platform.system()} {platform.machine()}"


def _versions(packages: tuple[str, ...]) -> str:
    peers = [f"{package} {importlib.metadata.version(package)}" for package in packages]
    return ", ".join([f"tfprune {__version__}", *peers, f"Python {platform.python_version()}"])

"""`tfprune setup-runtime`: the runtimes that exported files are run on, and setting them up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SETUPS = ("arm64", "wasm")
"""The runtimes that are set up in the user's cache folder; the others come with packages."""


def set_up(name: str, say: Callable[[str], None]) -> Path:
    """Set a runtime of `SETUPS` up and return its folder."""
    from tfprune.export.runners import arm64_setup, wasm_setup

    return {"arm64": arm64_setup, "wasm": wasm_setup}[name].set_up(say)


def list_runtimes() -> list[dict[str, Any]]:
    """Return name, description and what is missing of each runtime."""
    from tfprune.export.runners import RUNTIMES

    return [
        {"name": name, "description": runner.DESCRIPTION, "missing": runner.missing()}
        for name, runner in RUNTIMES.items()
    ]

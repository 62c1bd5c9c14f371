"""Runners: one small class per runtime that an artifact ships to.

A `Runner` loads an artifact and answers two questions: what does it compute, and how long does a
call take. The runtimes of TFLite files have names, which users pass to choose among them.

| name | what it is | what it needs |
|---|---|---|
| `native` | LiteRT in this process, the reference | nothing |
| `no-avx` | the same LiteRT on emulated x86 without AVX | qemu-user |
| `arm64` | LiteRT on emulated arm64, as in phones | qemu-user, `tfprune setup-runtime arm64` |
| `wasm` | LiteRT.js in headless Chromium | chromium, npm, `tfprune setup-runtime wasm` |
"""

from __future__ import annotations

from collections.abc import Iterable

from tfprune.errors import InvalidArgumentError, InvalidTypeError, MissingDependencyError
from tfprune.export.runners.base import Runner, TfliteRunner
from tfprune.export.runners.emulated import Arm64Runner, NoAvxRunner
from tfprune.export.runners.litert import LiteRtRunner
from tfprune.export.runners.savedmodel import SavedModelRunner
from tfprune.export.runners.wasm import WasmRunner

__all__ = [
    "RUNTIMES",
    "Arm64Runner",
    "LiteRtRunner",
    "NoAvxRunner",
    "Runner",
    "SavedModelRunner",
    "TfliteRunner",
    "WasmRunner",
    "resolve_runtimes",
    "split_runtimes",
]

RUNTIMES: dict[str, type[TfliteRunner]] = {
    runner.NAME: runner for runner in (LiteRtRunner, NoAvxRunner, Arm64Runner, WasmRunner)
}
"""The runtimes of TFLite files by name, the reference first."""


def split_runtimes() -> tuple[list[type[TfliteRunner]], dict[str, str]]:
    """Return the runtimes that are installed, and how to install the others by name."""
    needs = {name: runner.missing() for name, runner in RUNTIMES.items()}
    present = [RUNTIMES[name] for name, command in needs.items() if not command]
    return present, {name: command for name, command in needs.items() if command}


def resolve_runtimes(names: str | Iterable[str]) -> list[type[TfliteRunner]]:
    """Look up runtimes by name.

    Args:
        names: one name or several, or "all".

    Returns:
        The runtimes, the reference first.

    Raises:
        InvalidArgumentError: a name is unknown.
        InvalidTypeError: a name is not a string.
        MissingDependencyError: a runtime is not installed; the message says how to do that.

    Example:
        >>> [runner.NAME for runner in resolve_runtimes("native")]
        ['native']
    """
    if not isinstance(names, str | Iterable):
        raise InvalidTypeError(f"`runtimes` must hold names of runtimes. Received: {names!r}.")
    asked = [names] if isinstance(names, str) else list(names)
    if asked == ["all"]:
        asked = list(RUNTIMES)
    wrong = [name for name in asked if not isinstance(name, str)]
    if wrong:
        raise InvalidTypeError(f"`runtimes` must hold names of runtimes. Received: {wrong!r}.")
    unknown = [name for name in asked if name not in RUNTIMES]
    if unknown or not asked:
        raise InvalidArgumentError(
            f"`runtimes` must be 'auto', 'all', or names of {', '.join(RUNTIMES)}. "
            f"Received: {', '.join(map(repr, unknown)) or 'none'}."
        )
    chosen = [runner for name, runner in RUNTIMES.items() if name in asked]
    missing = [f"{r.NAME} needs {r.missing()}" for r in chosen if r.missing()]
    if missing:
        raise MissingDependencyError(f"Runtimes are not installed: {'; '.join(missing)}.")
    return chosen

"""Where the CLI writes: results to stdout, and progress, notes and errors to stderr.

Keras and TensorFlow write to both as they please, so a command runs inside `results_only()`, and
the calls whose native code is chatty (starting TensorFlow, converting) inside
`native_chatter_dropped()`. With that, `tfprune ... --json` can be piped into a parser.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

from rich.console import Console, RenderableType

progress_console = Console(stderr=True)
"""stderr: for spinners, progress bars and notes while a command works."""

_PIPED_WIDTH = 160
_STDOUT, _STDERR = 1, 2

# Information and warnings of TensorFlow's C++ code, which it logs before its own level applies,
# and the greeting of LiteRT's CPU engine. Errors (E0000 ..., F0000 ...) do not match.
_CHATTER = re.compile(
    r"[IW]\d{4} [\d:.]+ .*"
    r"|WARNING: All log messages before absl::InitializeLog\(\).*"
    r"|INFO: Created TensorFlow Lite XNNPACK delegate for CPU\."
    r"|\s*"
)


def print_result(*renderables: RenderableType) -> None:
    """Print tables and text to stdout, wide enough for a pipe."""
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    console.print(*renderables, sep="\n", highlight=False)


def print_json(payload: dict[str, Any]) -> None:
    """Print one JSON document to stdout."""
    print(json.dumps(payload, indent=2))


@contextlib.contextmanager
def results_only() -> Iterator[None]:
    """Send to stderr whatever Python or native code writes to stdout meanwhile."""
    sys.stdout.flush()
    real = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.showwarning = _one_line_warning
            yield
    finally:
        os.dup2(real, _STDOUT)
        os.close(real)


@contextlib.contextmanager
def native_chatter_dropped() -> Iterator[None]:
    """Hold back what native code writes to stderr, then pass on all of it but the chatter.

    Python's own stderr (progress, warnings) is not held. After an exception everything is passed
    on, and a crash of native code still shows where it happened.
    """
    sys.stderr.flush()
    real = os.dup(_STDERR)
    python_stderr = sys.stderr
    with tempfile.TemporaryFile() as held, os.fdopen(real, "w", buffering=1) as direct:
        if _writes_to(python_stderr, _STDERR):
            sys.stderr = direct
        watching = faulthandler.is_enabled()
        if not watching:
            faulthandler.enable(direct)
        os.dup2(held.fileno(), _STDERR)
        failed = True
        try:
            yield
            failed = False
        finally:
            os.dup2(real, _STDERR)
            if not watching:
                faulthandler.disable()
            sys.stderr = python_stderr
            _replay(held, drop_chatter=not failed)


def start_tensorflow() -> None:
    """Import Keras and TensorFlow without their greetings.

    `TF_CPP_MIN_LOG_LEVEL` may be set to see more; Python errors are raised in any case.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with native_chatter_dropped(), progress_console.status("Starting TensorFlow"):
        import keras  # noqa: F401
        import tensorflow  # noqa: F401


def _replay(held: BinaryIO, *, drop_chatter: bool) -> None:
    held.seek(0)
    for line in held.read().decode(errors="replace").splitlines():
        if not (drop_chatter and _CHATTER.fullmatch(line)):
            print(line, file=sys.stderr)


def _writes_to(stream: Any, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (AttributeError, OSError, ValueError):  # Captured in memory, as in a test.
        return False


def _one_line_warning(message: Warning | str, *_details: Any, **_options: Any) -> None:
    text = " ".join(str(message).split())
    progress_console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

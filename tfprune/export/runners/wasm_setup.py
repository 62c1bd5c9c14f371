"""The browser runtime: LiteRT.js from npm, in the cache folder of the user."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tfprune.errors import MissingDependencyError
from tfprune.export.runners.cache import cache_folder, run_tool, whole_folder

LITERT_JS_VERSION = "2.5.3"

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def folder() -> Path:
    """Return where the runtime is once it is set up; other versions have another folder."""
    return cache_folder() / f"wasm-litert-js-{LITERT_JS_VERSION}"


def find_browser() -> str | None:
    """Return the Chromium of this machine, or None; the variable `CHROME_PATH` may name it."""
    named = os.environ.get("CHROME_PATH")
    found = map(shutil.which, [named] if named else _BROWSERS)
    return next(filter(None, found), None)


def set_up(say: Callable[[str], None]) -> Path:
    """Set the runtime up, unless it is.

    Args:
        say: is told about each step.

    Returns:
        Its folder.

    Raises:
        MissingDependencyError: a tool is missing or fails; nothing is left behind.
        ArtifactError: the cache folder cannot be written.
    """
    missing = [
        f"{what}: apt-get install {package}"
        for what, package, found in (
            ("a browser", "chromium", find_browser()),
            ("npm", "npm", shutil.which("npm")),
        )
        if not found
    ]
    if missing:
        raise MissingDependencyError(f"Running LiteRT.js needs {', and '.join(missing)}")
    with whole_folder(folder()) as root:
        if root is not None:
            say("Downloading LiteRT.js")
            npm = ["npm", "install", "--prefix", str(root), "--no-audit", "--no-fund"]
            run_tool([*npm, f"@litertjs/core@{LITERT_JS_VERSION}"], "download LiteRT.js")
    return folder()

"""The arm64 runtime: a Python with LiteRT for arm64, unpacked into the cache folder of the user.

No root is needed, and nothing of the system is changed. apt downloads the packages of Python and
the libraries it needs, into folders of its own, from the archives that this machine uses anyway;
pip downloads the wheels; and what came together must start under qemu before it is kept.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tfprune.errors import MissingDependencyError
from tfprune.export.runners.cache import cache_folder, run_tool, whole_folder

LITERT_VERSION = "2.1.0"
"""Later ones crash under qemu 7.2."""

_NUMPY_VERSION = "2.2.6"
_PACKAGES = ("python3", "libstdc++6")
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")


def folder() -> Path:
    """Return where the runtime is once it is set up; other versions have another folder."""
    return cache_folder() / f"arm64-litert-{LITERT_VERSION}"


def interpreter(root: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command that starts the Python of a set-up, and its environment variables."""
    command = ["qemu-aarch64", "-cpu", "cortex-a76", "-L", str(root), str(root / "usr/bin/python3")]
    environment = {
        "PYTHONHOME": str(root / "usr"),
        "PYTHONPATH": str(root / "wheels"),
        "PYTHONNOUSERSITE": "1",
    }
    return command, environment


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
    if shutil.which("qemu-aarch64") is None:
        raise MissingDependencyError("Emulating arm64 needs qemu: apt-get install qemu-user")
    with whole_folder(folder()) as root:
        if root is not None:
            say("Downloading Python for arm64")
            with tempfile.TemporaryDirectory() as downloads:
                for package in _download_packages(Path(downloads)):
                    run_tool(["dpkg-deb", "-x", str(package), str(root)], f"unpack {package.name}")
            if not (root / "lib").exists():  # Debian 13 and later have only /usr/lib.
                (root / "lib").symlink_to("usr/lib")
            say("Downloading LiteRT and numpy for arm64")
            _install_wheels(root)
            say("Starting it")
            command, environment = interpreter(root)
            check = [*command, "-c", "import ai_edge_litert.interpreter"]
            run_tool(check, "start LiteRT for arm64 under qemu", environment)
    return folder()


def _download_packages(downloads: Path) -> list[Path]:
    """Download the packages of an empty arm64 system that has only Python."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (downloads / name).mkdir(parents=True)
    (downloads / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Install-Recommends": "false",
        "Dir::State": downloads / "state",
        "Dir::State::status": downloads / "status",
        "Dir::Cache": downloads / "cache",
        "Debug::NoLocking": "true",
    }
    apt = ["apt-get", "--quiet", *(f"-o{name}={value}" for name, value in options.items())]
    if os.geteuid() == 0:
        apt.append("-oAPT::Sandbox::User=root")  # Its own user cannot enter the folder.
    run_tool([*apt, "update"], "read the package lists for arm64")
    run_tool(
        [*apt, "--yes", "--download-only", "install", *_PACKAGES],
        "download Python for arm64",
    )
    return sorted((downloads / "cache" / "archives").glob("*.deb"))


def _install_wheels(root: Path) -> None:
    python = next((root / "usr/lib").glob("python3.*")).name.removeprefix("python")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--target", str(root / "wheels"), "--no-deps", "--only-binary=:all:", "--no-compile"]
    pip += [f"--platform={platform}" for platform in _PLATFORMS]
    pip += [f"--python-version={python}", "--implementation=cp"]
    wheels = [f"numpy=={_NUMPY_VERSION}", f"ai-edge-litert=={LITERT_VERSION}"]
    run_tool([*pip, *wheels], "download LiteRT for arm64")

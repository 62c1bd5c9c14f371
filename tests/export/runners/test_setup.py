"""Setting runtimes up: whole or not at all, once, and with errors that say what to do."""

import pytest

from tfprune.errors import ArtifactError, MissingDependencyError
from tfprune.export.runners import Arm64Runner, WasmRunner, arm64_setup, wasm_setup
from tfprune.export.runners.cache import run_tool, whole_folder


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Return a function that makes the only programs on the path; the cache is empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("TFPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CHROME_PATH", raising=False)

    def make(**scripts):
        for name, script in scripts.items():
            (folder / name.replace("_", "-")).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name.replace("_", "-")).chmod(0o755)

    return make


def test_a_folder_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "cache" / "runtime"
    with pytest.raises(ValueError, match="cut"), whole_folder(target) as made:
        (made / "half").touch()
        raise ValueError("cut")
    assert not target.exists()
    (target.parent / ".runtime.left-over").mkdir()
    with whole_folder(target) as made:
        (made / "all").touch()
        assert not target.exists()
    assert sorted(path.name for path in target.parent.iterdir()) == ["runtime", "runtime.lock"]
    with whole_folder(target) as made:
        assert made is None
    assert (target / "all").exists()


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="Cannot write"), whole_folder(tmp_path / "file" / "x"):
        pass


def test_what_must_be_installed_first_is_named(tools):
    with pytest.raises(MissingDependencyError, match="apt-get install qemu-user"):
        arm64_setup.set_up(print)
    with pytest.raises(MissingDependencyError, match="chromium, and npm: apt-get install npm"):
        wasm_setup.set_up(print)
    with pytest.raises(MissingDependencyError, match="no-such-tool is not installed"):
        run_tool(["no-such-tool"], "try")


def test_what_fails_without_a_network_is_told_and_leaves_nothing(tools, tmp_path):
    tools(
        qemu_aarch64="exit 0",
        apt_get="echo 'Could not resolve the archive' >&2; exit 100",
        npm="echo 'request failed' >&2; exit 1",
        chromium="exit 0",
    )
    with pytest.raises(MissingDependencyError, match=r"read the package lists.*Could not resolve"):
        arm64_setup.set_up(print)
    with pytest.raises(MissingDependencyError, match=r"request failed \(This step needs network"):
        wasm_setup.set_up(print)
    assert Arm64Runner.missing() == "tfprune setup-runtime arm64"
    assert WasmRunner.missing() == "tfprune setup-runtime wasm"
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


def test_a_runtime_is_set_up_once(tools, tmp_path, monkeypatch):
    tools(chromium="exit 0", npm='/bin/echo run >> "$HOME/calls"; /bin/mkdir -p "$3/node_modules"')
    monkeypatch.setenv("HOME", str(tmp_path))
    said = []
    folder = wasm_setup.set_up(said.append)
    assert wasm_setup.set_up(said.append) == folder
    assert (folder / "node_modules").is_dir()
    assert (tmp_path / "calls").read_text() == "run\n"
    assert said == ["Downloading LiteRT.js"]
    assert WasmRunner.missing() == ""


@pytest.mark.slow
@pytest.mark.parametrize("setup", [arm64_setup, wasm_setup])
def test_a_real_set_up(setup, tmp_path, monkeypatch):
    runner = Arm64Runner if setup is arm64_setup else WasmRunner
    if needed := [part for part in runner.missing().split(" && ") if "apt-get" in part]:
        pytest.skip(f"needs {needed[0]}")
    monkeypatch.setenv("TFPRUNE_CACHE", str(tmp_path / "cache"))
    try:
        setup.set_up(print)
    except MissingDependencyError as error:
        if "network" in str(error):
            pytest.skip(f"needs a network: {error}")
        raise
    assert not runner.missing()

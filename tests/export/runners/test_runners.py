"""One list of promises that every runtime keeps."""

import time
from pathlib import Path

import numpy as np
import pytest

from tests.export.runners.conftest import runtime_parameters
from tfprune.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    MissingDependencyError,
    VerificationError,
)
from tfprune.export.runners import (
    RUNTIMES,
    Arm64Runner,
    WasmRunner,
    emulated,
    resolve_runtimes,
    split_runtimes,
)
from tfprune.export.runners.browser import Browser
from tfprune.export.savedmodel import write_saved_model
from tfprune.export.signature import signature_of
from tfprune.export.tflite import convert

TOLERANCES = {"float32": 1e-5, "float16": 1e-2, "dynamic": 0.05, "int8": 0.1, "two inputs": 1e-5}


@pytest.mark.parametrize("name", runtime_parameters())
def test_outputs_and_times_of_every_kind_of_file(name, load, files):
    for kind, (path, inputs, expected) in files.items():
        runner = load(name, path)
        for _ in range(2):  # A runner is asked as often as one likes.
            found = runner.run(inputs)
        assert set(found) == set(expected)
        for output, array in expected.items():
            assert found[output].shape == array.shape
            assert found[output].dtype == array.dtype
            difference = np.abs(found[output] - array).max() / np.abs(array).max()
            assert difference < TOLERANCES[kind], kind
        times = runner.time(inputs, 3)
        assert len(times) == 3
        assert min(times) > 0
        assert runner.runtime
        runner.close()


@pytest.mark.parametrize("name", runtime_parameters(["no-avx", "arm64", "wasm"]))
def test_a_file_that_is_no_model_is_refused_with_the_runtime_named(name, load, tmp_path):
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(500))
    with pytest.raises(VerificationError, match=r"broken.tflite does not run on .*(emul|Web)"):
        load(name, path)


def test_an_open_batch_size_is_resized(load, image_net, tmp_path):
    write_saved_model(image_net, signature_of(image_net, None), tmp_path / "open")
    path = tmp_path / "open.tflite"
    path.write_bytes(convert(tmp_path / "open", optimize=False))
    x = np.random.default_rng(0).random((3, 16, 16, 3), "float32")
    for name in ("native", "no-avx"):
        found = load(name, path).run({"image": x})["output_0"]
        np.testing.assert_allclose(found, image_net(x), atol=1e-5)


def test_a_process_that_hangs_or_dies_is_an_error(load, files, monkeypatch):
    path, inputs, _ = files["float32"]
    runner = load("no-avx", path)
    runner._process.kill()
    with pytest.raises(VerificationError, match="ended with signal 9"):
        runner.run(inputs)
    runner = load("no-avx", path)
    monkeypatch.setattr(emulated, "ANSWER_SECONDS", 0.01)
    with pytest.raises(VerificationError, match="no answer in 0.01 s"):
        runner.run(inputs)


def test_a_closed_runner_leaves_no_process(load, files):
    runner = load("no-avx", files["float32"][0])
    runner.close()
    assert runner._process.poll() is not None


def processes_of(group):
    """Return the processes of a group that are not dead, be they reaped or not."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own_group, *_ = file.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has just ended.
        if own_group == str(group) and state != "Z":
            found.append(file.parent.name)
    return found


@pytest.mark.slow
def test_a_closed_browser_leaves_neither_process_nor_profile(load, files):
    runner = load("wasm", files["float32"][0])
    browser = runner._own_browser
    group, profile = browser._process.pid, browser._profile.name
    runner.close()
    deadline = time.monotonic() + 10
    while running := processes_of(group):
        assert time.monotonic() < deadline, running
        time.sleep(0.1)
    assert not Path(profile).exists()


@pytest.mark.slow
def test_a_browser_that_dies_is_an_error(load, files):
    path, inputs, _ = files["float32"]
    runner = load("wasm", path)
    runner._browser._process.kill()
    with pytest.raises(VerificationError, match="the browser ended"):
        runner.run(inputs)


@pytest.mark.slow
def test_several_files_share_a_browser(files):
    if missing := WasmRunner.missing():
        pytest.skip(f"needs {missing}")
    with Browser(threads=2) as browser:
        for kind in ("float32", "two inputs"):
            path, inputs, expected = files[kind]
            found = WasmRunner(path, 2, browser).run(inputs)
            for output, array in expected.items():
                np.testing.assert_allclose(found[output], array, atol=1e-5)


def test_runtimes_are_looked_up_by_name(monkeypatch):
    assert [runner.NAME for runner in resolve_runtimes(["native"])] == ["native"]
    with pytest.raises(InvalidArgumentError, match="names of native, no-avx, arm64, wasm"):
        resolve_runtimes(["phone"])
    with pytest.raises(InvalidArgumentError, match="Received: none"):
        resolve_runtimes([])
    with pytest.raises(InvalidTypeError, match="names of runtimes"):
        resolve_runtimes(3)
    monkeypatch.setattr(Arm64Runner, "missing", classmethod(lambda cls: ""))
    assert Arm64Runner in split_runtimes()[0]


def test_a_runtime_that_is_missing_is_named_with_the_command(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    present, missing = split_runtimes()
    assert present == [RUNTIMES["native"]]
    assert missing["no-avx"] == "apt-get install qemu-user"
    assert missing["wasm"] == "apt-get install chromium && tfprune setup-runtime wasm"
    with pytest.raises(MissingDependencyError, match="arm64 needs .*tfprune setup-runtime arm64"):
        resolve_runtimes("all")

"""`tfprune check` on files of every kind."""

import json
import shutil
import subprocess
import sys

import keras
import pytest

import tfprune
from tfprune.export.savedmodel import write_saved_model
from tfprune.export.signature import signature_of
from tfprune.export.tflite import convert

layers = keras.layers
needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None, reason="needs qemu: apt-get install qemu-user"
)


@pytest.fixture
def build():
    def build(ordinary_convolution):
        """A net for sparse mode; with an ordinary convolution in it, a trap."""
        inputs = keras.Input((32, 32, 3))
        x = layers.Conv2D(16, 3, strides=2)(layers.ZeroPadding2D(1)(inputs))
        x = layers.Conv2D(32, 1)(x)
        if ordinary_convolution:
            x = layers.Conv2D(32, 3, padding="same")(x)
        outputs = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 1)(x))
        return tfprune.prune_once(keras.Model(inputs, outputs), 0.9)

    return build


@pytest.fixture
def write(tmp_path):
    def write(model):
        """Convert as anybody would who wants the sparse encoding."""
        write_saved_model(model, signature_of(model), tmp_path / "saved_model")
        path = tmp_path / "model.tflite"
        path.write_bytes(convert(tmp_path / "saved_model", optimize=False, sparse=True))
        return path

    return write


def test_a_file_that_runs_sparse(run, build, write):
    result = run("check", write(build(ordinary_convolution=False)))
    assert result.exit_code == 0, result.stderr
    assert "runs sparse: 2 of its 1x1 convolutions" in result.stdout


def test_a_trap_has_an_exit_code_of_its_own(run, build, write):
    result = run("check", write(build(ordinary_convolution=True)), "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert "garbage" in found["traps"][0]
    assert not found["is_ready"]


def test_a_keras_file_is_checked_as_it_would_be_exported(run, build, tmp_path):
    build(ordinary_convolution=False).save(tmp_path / "net.keras")
    result = run("check", tmp_path / "net.keras")
    assert result.exit_code == 0, result.stderr
    assert "runs sparse: 2 of its 1x1 convolutions" in result.stdout


def test_a_file_that_is_a_trap_is_fixed(run, build, write, tmp_path):
    path = write(build(ordinary_convolution=True))
    before = path.read_bytes()
    result = run("check", path, "--fix", tmp_path / "fixed.tflite", "--json")
    assert result.exit_code == 0, result.stderr
    assert not json.loads(result.stdout)["traps"]
    assert path.read_bytes() == before
    assert run("check", tmp_path / "fixed.tflite").exit_code == 0


def test_only_tflite_files_are_fixed(run, build, tmp_path):
    build(ordinary_convolution=False).save(tmp_path / "net.keras")
    result = run("check", tmp_path / "net.keras", "--fix", tmp_path / "fixed.tflite")
    assert result.exit_code == 2
    assert "only .tflite files can be fixed" in result.stderr


def test_a_file_that_is_no_model(run, tmp_path):
    (tmp_path / "net.tflite").write_bytes(b"nothing of the kind")
    result = run("check", tmp_path / "net.tflite")
    assert result.exit_code == 1
    assert "not a TFLite model" in result.stderr


@needs_qemu
def test_a_file_is_run_and_compared_without_tensorflow(build, write):
    path = write(build(ordinary_convolution=False))
    script = (
        "import sys\n"
        "from tfprune.cli import main\n"
        f"sys.argv = ['tfprune', 'check', {str(path)!r}, '--runtime', 'no-avx', '--json']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as error:\n"
        "    print(error.code, sorted({'tensorflow', 'keras'} & set(sys.modules)))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    *document, last = process.stdout.splitlines()
    assert last == "0 []"
    found = json.loads("\n".join(document))["run"]
    assert [outcome["name"] for outcome in found["outcomes"]] == ["native", "no-avx"]
    assert found["is_same"]


@needs_qemu
def test_a_file_that_differs_has_the_exit_code_of_a_failed_verification(run, build, write):
    result = run("check", write(build(ordinary_convolution=True)), "--run")
    assert result.exit_code == 3
    assert "DIFFERS" in result.stdout
    assert "not run on arm64 (tfprune setup-runtime arm64)" in result.stdout


def test_unknown_and_missing_runtimes_are_errors(run, build, write):
    path = write(build(ordinary_convolution=False))
    result = run("check", path, "--runtime", "phone")
    assert result.exit_code == 1
    assert "names of native, no-avx, arm64, wasm" in result.stderr
    result = run("check", path, "--runtime", "arm64")
    assert result.exit_code == 1
    assert "tfprune setup-runtime arm64" in result.stderr

"""`tfprune inspect FILE.tflite`."""

import json
import subprocess
import sys

import keras
import pytest

import tfprune
from tfprune.export.savedmodel import write_saved_model
from tfprune.export.signature import signature_of
from tfprune.export.tflite import convert


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8,), name="x"), keras.layers.Dense(16), keras.layers.Dense(3)], name="net"
    )
    return tfprune.prune_once(model, 0.5, pattern="2:4")


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect") / "out"
    metadata = tfprune.export.Metadata(
        labels=["a", "b", "c"], normalization=(0.5, 2), license="MIT [x]"
    )
    return tfprune.export_model(model, folder, "tflite", metadata=metadata, runs=1).path("tflite")


def test_a_file_is_shown_with_its_metadata(run, file):
    result = run("inspect", file)
    assert result.exit_code == 0
    for text in ("x: float32 1x8", "2 x FULLY_CONNECTED", "3: a, b, c", "mean 0.5, std 2", "2:4 in",
                 "50.00 %", "MIT [x]"):  # fmt: skip
        assert text in result.output


def test_json_holds_everything(run, file):
    found = json.loads(run("inspect", file, "--json").stdout)
    assert found["inputs"] == [{"name": "x", "shape": [1, 8], "dtype": "float32"}]
    assert found["outputs"][0]["name"] == "output_0"
    assert found["operators"] == {"FULLY_CONNECTED": 2}
    assert found["weight_bytes"]["float32"] >= 4 * (8 * 16 + 16 * 3)
    assert found["bytes"] == file.stat().st_size
    assert found["sparsity"] == 0.5
    assert found["patterns"][0]["kernels"] == 2
    assert found["labels"] == ["a", "b", "c"]
    assert found["provenance"]["model"] == "net"


def test_a_file_of_another_tool_is_shown_too(run, model, tmp_path):
    write_saved_model(model, signature_of(model), tmp_path / "saved_model")
    path = tmp_path / "plain.tflite"
    path.write_bytes(convert(tmp_path / "saved_model", optimize=False))
    result = run("inspect", path)
    assert "not tfprune" in result.output
    assert json.loads(run("inspect", path, "--json").stdout)["provenance"] is None


def test_tensorflow_is_not_needed(file):
    code = (
        "import sys\n"
        "from tfprune.cli import main\n"
        f"sys.argv = ['tfprune', 'inspect', {str(file)!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    sys.exit(end.code or len({'tensorflow', 'keras'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("end", [0, 100, 900])
def test_a_damaged_file_is_named(run, file, tmp_path, end):
    path = tmp_path / "cut.tflite"
    path.write_bytes(file.read_bytes()[:end])
    result = run("inspect", path)
    assert result.exit_code == 1
    assert "cut.tflite is" in result.output


def test_labels_are_taken_from_a_file(run, model_file, tmp_path):
    (tmp_path / "labels.txt").write_text("".join(f"class {n}\n" for n in range(10)))
    arguments = ["--formats", "tflite", "--labels", tmp_path / "labels.txt"]
    result = run("export", model_file, tmp_path / "out", *arguments)
    assert result.exit_code == 0, result.output
    assert "10: class 0, class 1" in run("inspect", tmp_path / "out" / "model.tflite").output

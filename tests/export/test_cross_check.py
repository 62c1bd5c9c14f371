"""One file in several runtimes: what is the same, what differs, and what does not run."""

import json

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfprune.errors import ArtifactError, InvalidArgumentError
from tfprune.export.cross_check import CrossCheck, RuntimeOutcome, cross_check, random_inputs
from tfprune.export.runners import NoAvxRunner
from tfprune.export.savedmodel import write_saved_model
from tfprune.export.signature import signature_of
from tfprune.export.tflite import convert


@pytest.fixture(scope="module")
def file(two_inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("file")
    write_saved_model(two_inputs, signature_of(two_inputs), folder / "saved")
    path = folder / "model.tflite"
    path.write_bytes(convert(folder / "saved"))
    return path


def needs_qemu():
    if missing := NoAvxRunner.missing():
        pytest.skip(f"needs {missing}")


def test_a_file_is_the_same_in_every_runtime(file):
    needs_qemu()
    checked = cross_check(file, runs=2)
    assert [outcome.name for outcome in checked.outcomes] == ["native", "no-avx"]
    assert checked.is_same
    assert checked.missing["arm64"] == "tfprune setup-runtime arm64"
    assert "not run on arm64 (tfprune setup-runtime arm64)" in str(checked)
    assert json.loads(json.dumps(checked.to_dict()))["is_same"]


def test_a_file_without_a_signature_has_the_names_of_its_tensors(file, tmp_path):
    needs_qemu()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read_bytes(), 0))
    model.signatureDefs = None
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(bytes(builder.Output()))
    assert cross_check(bare, "no-avx").is_same


def test_what_differs_or_does_not_run_is_told():
    outcomes = (
        RuntimeOutcome("native", "LiteRT", 1.0, 0.0),
        RuntimeOutcome("no-avx", "LiteRT", 2.0, 0.5),
        RuntimeOutcome("wasm", "", None, None, "it ended"),
        RuntimeOutcome("arm64", "LiteRT", 2.0, float("nan")),
    )
    checked = CrossCheck("model.tflite", outcomes, 1e-4, 0, {})
    assert not checked.is_same
    lines = [" ".join(line.split()) for line in str(checked).splitlines()]
    assert "native 1 ms 0.0e+00 reference LiteRT" in lines
    assert "no-avx 2 ms 5.0e-01 DIFFERS LiteRT" in lines
    assert "wasm - - DOES NOT RUN it ended" in lines
    assert CrossCheck("model.tflite", outcomes[:1], 1e-4, 0, {}).is_same


def test_inputs_are_in_ranges_that_models_take():
    details = {
        "image": {"shape": np.array([1, 8]), "dtype": np.uint8},
        "mask": {"shape": np.array([1, 8]), "dtype": np.bool_},
        "x": {"shape": np.array([1, 8]), "dtype": np.float32},
    }
    inputs = random_inputs(details, seed=0)
    assert {name: array.dtype.name for name, array in inputs.items()} == {
        "image": "uint8", "mask": "bool", "x": "float32",
    }  # fmt: skip
    assert inputs["image"].max() > 1 > inputs["x"].max()


def test_wrong_names_and_files_are_refused(file, tmp_path):
    with pytest.raises(InvalidArgumentError, match="names of native, no-avx, arm64, wasm"):
        cross_check(file, "phone")
    with pytest.raises(ArtifactError, match="Cannot read"):
        cross_check(tmp_path / "absent.tflite")

"""`export_model` end to end, in the real runtimes."""

import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    UnsupportedModelError,
    VerificationError,
)
from tfprune.export import ExportReport, Tolerance, export_model
from tfprune.export.formats import FORMATS, Source, register_format, resolve_formats
from tfprune.export.runners import LiteRtRunner, SavedModelRunner
from tfprune.export.savedmodel import stored_weights

layers = keras.layers
resolve_formats("savedmodel")  # Registers the formats.
EVERY_FORMAT = list(FORMATS)
UNCALIBRATED = [name for name in EVERY_FORMAT if not FORMATS[name].needs_representative_data]


@pytest.fixture(scope="module")
def everything(trained_cnn, digits, tmp_path_factory):
    """One export of a trained classifier to every format, and the folder that it went to."""
    folder = tmp_path_factory.mktemp("export") / "build"
    report = export_model(
        trained_cnn,
        folder,
        EVERY_FORMAT,
        representative_data=digits[0][:200],
        verification_data=digits[0][1500:],
    )
    return report, folder


def test_every_format_is_written_verified_and_listed(everything):
    report, folder = everything
    files = {artifact.file for artifact in report.artifacts}
    assert report.names == EVERY_FORMAT
    assert set(os.listdir(folder)) == files | {"report.json"}
    assert os.listdir(folder.parent) == ["build"]
    assert ExportReport.load(folder) == report
    assert json.loads((folder / "report.json").read_text()) == report.to_dict()


def test_every_format_keeps_the_predictions_of_a_trained_model(everything):
    report, _ = everything
    for artifact in report.artifacts:
        assert artifact.max_difference <= artifact.tolerance
        assert artifact.agreement >= 0.95
        assert artifact.clear_agreement >= 0.98
        assert artifact.clear_inputs > 50
    assert report["tflite"].max_difference < 1e-5
    assert report["tflite_float16"].max_difference < 5e-3
    assert report.verification == "100 examples of `verification_data`"
    assert report.representative == "200 examples of `representative_data`"


def test_sizes_and_latencies_are_measured(everything):
    report, folder = everything
    for artifact in report.artifacts:
        path = folder / artifact.file
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        assert artifact.bytes == sum(file.stat().st_size for file in files)
        assert 0 < artifact.gzip_bytes < artifact.bytes
        assert artifact.latency_ms > 0
    sizes = {artifact.name: artifact.bytes for artifact in report.artifacts}
    assert sizes["tflite_int8"] < sizes["tflite_float16"] < sizes["tflite"] < sizes["savedmodel"]
    assert report["tflite"].threads == 1
    assert report["tflite"].runtime.startswith("ai-edge-litert ")
    assert report["savedmodel"].runtime == f"tensorflow {tf.__version__}"


def test_artifacts_take_and_give_float32_with_a_batch_of_one(everything):
    report, _ = everything
    for name in EVERY_FORMAT:
        runner = FORMATS[name].runner(report.path(name), 1)
        outputs = runner.run({"image": np.zeros((1, 8, 8, 1), "float32")})
        assert {key: (v.shape, v.dtype) for key, v in outputs.items()} == {
            "output_0": ((1, 10), np.dtype("float32"))
        }


def test_a_saved_model_stores_every_weight_once(everything, trained_cnn):
    report, _ = everything
    expected = sum(w.shape.num_elements() for w in trained_cnn.weights if len(w.shape) > 1)
    assert sum(weight.size for weight in stored_weights(report.path("savedmodel"))) == expected


def test_zeros_are_counted_in_what_is_stored(tmp_path, rng):
    model = keras.Sequential([keras.Input((32,)), layers.Dense(64)])
    kernel = rng.normal(size=(32, 64)).astype("float32")
    kernel[:24] = 0
    model.set_weights([kernel, np.ones(64)])
    report = export_model(
        model, tmp_path / "build", UNCALIBRATED, verification_data=rng.random((4, 32))
    )
    for name in ("savedmodel", "tflite", "tflite_float16"):
        assert report[name].sparsity == 0.75
    # Quantization rounds some of the smallest weights to zero.
    assert 0.75 <= report["tflite_dynamic"].sparsity < 0.8


def test_a_pruned_model_is_stripped_and_left_as_it_is(tmp_path):
    model = keras.Sequential([keras.Input((16,), name="x"), layers.Dense(32), layers.Dense(4)])
    pruned = tfprune.prune(tfprune.prune_once(model, 0.75), schedule="keep")
    report = export_model(pruned, tmp_path / "build")
    assert tfprune.is_pruned(pruned)
    assert report["tflite"].sparsity == report["savedmodel"].sparsity == 0.75
    x = np.random.default_rng(0).random((1, 16), dtype="float32")
    outputs = SavedModelRunner(report.path("savedmodel"), threads=1).run({"x": x})["output_0"]
    np.testing.assert_allclose(outputs, pruned(x), rtol=1e-5, atol=1e-6)


def test_dict_inputs_and_outputs_keep_their_names_in_every_artifact(two_inputs, tmp_path, rng):
    data = {"values": rng.random((40, 4)), "ids": rng.integers(0, 11, (40, 3))}
    formats = ["savedmodel", "tflite", "tflite_int8"]
    report = export_model(two_inputs, tmp_path / "build", formats, representative_data=data)
    one = {"values": data["values"][:1].astype("float32"), "ids": data["ids"][:1].astype("int32")}
    expected = {name: value.numpy() for name, value in two_inputs(one).items()}
    runners = [SavedModelRunner(report.path("savedmodel"), 1)]
    runners += [LiteRtRunner(report.path(name), 1) for name in formats[1:]]
    for runner in runners:
        outputs = runner.run(one)
        assert set(outputs) == {"score", "class"}
        for name, value in outputs.items():
            np.testing.assert_allclose(value, expected[name], atol=0.05)


def shared_and_passed_through():
    a, b = keras.Input((4,)), keras.Input((4,))
    y = layers.Dense(2)(layers.Subtract()([a, b]))
    return keras.Model([a, b], [y, y, a])


def nested_inputs():
    a, b, c = keras.Input((1,)), keras.Input((2,)), keras.Input((3,))
    return keras.Model([a, [b, c]], layers.Dense(2)(layers.Concatenate()([c, a, b])))


def recurrent(layer):
    return keras.Sequential([keras.Input((5, 3)), layer, layers.Dense(2)])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.embed = layers.Embedding(7, 4)
        self.hidden = layers.Dense(3)

    def call(self, inputs):
        return {"y": self.hidden(self.embed(inputs["ids"])) * inputs["weight"]}


@pytest.mark.parametrize(
    "build",
    [
        shared_and_passed_through,
        nested_inputs,
        lambda: recurrent(layers.LSTM(4)),
        lambda: recurrent(layers.Bidirectional(layers.GRU(4, return_sequences=True))),
        lambda: keras.Sequential([keras.Input((6,)), layers.Rescaling(1 / 255), layers.Dense(2)]),
        lambda: keras.Model(x := keras.Input((4,)), keras.ops.cast(layers.Dense(5)(x), "int32")),
    ],
    ids=["list", "nested", "lstm", "gru", "rescaling", "integer output"],
)
def test_models_of_every_structure_export_without_data(build, tmp_path):
    report = export_model(build(), tmp_path / "build", runs=2)
    assert report.names == ["savedmodel", "tflite"]
    assert report.verification == "16 examples of random inputs (seed 0)"


def test_a_subclassed_model_takes_integer_dtypes_from_the_data(tmp_path, rng):
    model = Subclassed()
    data = {
        "ids": rng.integers(0, 7, (8, 5)),
        "weight": rng.random((8, 1, 1)).astype("float32"),
    }
    model(data)
    report = export_model(model, tmp_path / "build", verification_data=data, runs=2)
    loaded = tf.saved_model.load(str(report.path("savedmodel"))).signatures["serving_default"]
    specs = loaded.structured_input_signature[1]
    assert (specs["ids"].dtype, specs["weight"].dtype) == (tf.int32, tf.float32)


def test_an_open_batch_runs_with_any_number_of_examples(dense, tmp_path, rng):
    report = export_model(dense, tmp_path / "build", batch_size=None, runs=2)
    x = rng.random((7, 4), dtype="float32")
    for runner in (
        SavedModelRunner(report.path("savedmodel"), 1),
        LiteRtRunner(report.path("tflite"), 1),
    ):
        np.testing.assert_allclose(runner.run({"x": x})["output_0"], dense(x), atol=1e-5)


def test_a_larger_batch_is_verified_on_examples_that_do_not_fill_it(dense, tmp_path, rng):
    data = rng.random((7, 4))
    report = export_model(
        dense, tmp_path / "build", "tflite", batch_size=4, threads=2, verification_data=data
    )
    runner = LiteRtRunner(report.path("tflite"), 1)
    assert runner.run({"x": np.zeros((4, 4), "float32")})["output_0"].shape == (4, 3)
    assert report["tflite"].threads == 2


def test_a_mismatch_is_an_error_and_keeps_the_former_export(dense, tmp_path, rng):
    before = export_model(dense, tmp_path / "build", "tflite", runs=2)
    strict = {"tflite_float16": Tolerance(1e-9)}
    with pytest.raises(VerificationError, match=r"model_float16\.tflite does not compute"):
        export_model(dense, tmp_path / "build", UNCALIBRATED, tolerances=strict, runs=2)
    assert ExportReport.load(tmp_path / "build") == before
    assert os.listdir(tmp_path) == ["build"]


@pytest.fixture
def _broken_formats():
    tflite = FORMATS["tflite"]
    options = {"runner": tflite.runner, "stored_weights": tflite.stored_weights}

    @register_format("broken", filename="broken.tflite", tolerance=Tolerance(0), **options)
    def _write_garbage(source: Source, path):
        path.write_bytes(b"not a flatbuffer")

    @register_format("zeroed", filename="zeroed.tflite", tolerance=Tolerance(0.5), **options)
    def _write_zeros(source: Source, path):
        zeros = keras.models.clone_model(source.model)
        for weight in zeros.weights:
            weight.assign(np.zeros(weight.shape))
        tflite.write(Source(zeros, source.signature, None, source.work), path)

    yield
    del FORMATS["broken"], FORMATS["zeroed"]


@pytest.mark.usefixtures("_broken_formats")
def test_a_file_that_does_not_load_or_computes_zeros_is_an_error(dense, tmp_path):
    with pytest.raises(VerificationError, match=r"broken\.tflite was written and cannot be read"):
        export_model(dense, tmp_path / "build", ["tflite", "broken"])
    with pytest.raises(VerificationError, match=r"zeroed\.tflite does not compute.*differs by 1 "):
        export_model(dense, tmp_path / "build", ["zeroed"])
    assert os.listdir(tmp_path) == []


def test_a_crash_of_the_converter_is_an_error_and_not_the_end_of_the_process(tmp_path, rng):
    model = recurrent(layers.LSTM(2))
    with pytest.raises(UnsupportedModelError, match=r"crashed .signal 11.*unroll=True"):
        export_model(
            model, tmp_path / "build", "tflite_int8", representative_data=rng.random((2, 5, 3))
        )
    assert os.listdir(tmp_path) == []


def test_an_op_without_an_integer_kernel_is_named(two_inputs, tmp_path, rng):
    data = {"values": rng.random((4, 4)), "ids": rng.integers(0, 11, (4, 3))}
    message = "cannot be converted to model_int16x8.tflite. An op .* use tflite_dynamic"
    with pytest.raises(UnsupportedModelError, match=message):
        export_model(two_inputs, tmp_path / "build", "tflite_int16x8", representative_data=data)


def test_an_op_that_litert_does_not_have_is_named(tmp_path):
    x = keras.Input((4,))
    model = keras.Model(x, keras.ops.argmax(layers.Dense(5)(x), axis=-1))
    with pytest.raises(UnsupportedModelError, match=r"does not have \(BitwiseAnd\)"):
        export_model(model, tmp_path / "build", "tflite")


def test_a_recurrent_model_with_an_open_batch_asks_for_a_fixed_one(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"TensorListReserve.*pass batch_size=1"):
        export_model(recurrent(layers.LSTM(2)), tmp_path / "build", "tflite", batch_size=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": "tflit"}, "at least one of savedmodel, tflite, .* Received: 'tflit'"),
        ({"formats": []}, "Received: none"),
        ({"formats": ["tflite", "tflite"]}, "names a format twice"),
        ({"formats": "tflite_int8"}, r"\['tflite_int8'\] are calibrated on data"),
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1. Received: 0"),
        ({"threads": 1.5}, "`threads` must be an integer"),
        ({"runs": True}, "`runs` must be an integer"),
        ({"tolerances": {"onnx": Tolerance(1)}}, r"names \['onnx'\], which `formats` does not"),
        ({"representative_data": np.zeros((2, 5))}, r"expected shape \(examples, 4\)"),
        ({"verification_data": np.zeros((2, 5))}, "`verification_data` does not fit"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_written(
    dense, tmp_path, options, message
):
    with pytest.raises(InvalidArgumentError, match=message):
        export_model(dense, tmp_path / "build", **options)
    assert os.listdir(tmp_path) == []


def test_names_and_tolerances_of_another_type_are_type_errors(dense, tmp_path):
    with pytest.raises(InvalidTypeError, match="must hold names of formats"):
        export_model(dense, tmp_path / "build", [3])
    with pytest.raises(InvalidTypeError, match=r"must hold `tfprune\.export\.Tolerance`"):
        export_model(dense, tmp_path / "build", "tflite", tolerances={"tflite": 0.1})


def test_a_format_cannot_be_registered_twice():
    with pytest.raises(InvalidArgumentError, match="'tflite' is registered already"):
        register_format("tflite", filename="x", tolerance=Tolerance(0))(lambda source, path: None)


def test_a_killed_export_leaves_the_former_one_and_the_next_cleans_up(dense, tmp_path):
    target = tmp_path / "build"
    before = export_model(dense, target, "tflite", runs=2)
    code = f"""
import keras
from tfprune.export import export_model
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
export_model(model, {str(target)!r}, "tflite", runs=10**9)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    staged = tmp_path / ".build.tfprune-staging" / "model.tflite"
    deadline = time.monotonic() + 120
    while not staged.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert staged.exists()
    assert ExportReport.load(target) == before
    export_model(dense, target, "savedmodel", runs=2)
    assert sorted(os.listdir(target)) == ["report.json", "saved_model"]
    assert os.listdir(tmp_path) == ["build"]


@pytest.mark.slow
def test_two_exports_to_one_folder_at_once_leave_one_whole_set_and_nothing_else(tmp_path):
    target, temporary = tmp_path / "build", tmp_path / "tmp"
    temporary.mkdir()
    code = f"""
import sys, keras
from tfprune.export import export_model
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name=sys.argv[1])
for _ in range(3):
    export_model(model, {str(target)!r}, sys.argv[2:], runs=2)
"""
    sets = {"one": ["savedmodel", "tflite"], "two": ["tflite", "tflite_dynamic", "onnx"]}
    environment = {**os.environ, "TMPDIR": str(temporary)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, name, *formats], env=environment, stderr=subprocess.DEVNULL
        )
        for name, formats in sets.items()
    ]
    assert [child.wait() for child in children] == [0, 0]
    report = ExportReport.load(target)
    assert [artifact.name for artifact in report.artifacts] == sets[report.model]
    files = {artifact.file for artifact in report.artifacts} | {"report.json"}
    assert set(os.listdir(target)) == files
    assert sorted(os.listdir(tmp_path)) == ["build", "tmp"]
    assert set(os.listdir(temporary)) <= {".ses"}  # ONNX Runtime's own, made on import.

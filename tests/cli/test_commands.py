"""inspect, prune and export on a real model: results, files and JSON."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

KERNELS = {"stem": 72, "body": 1152, "head": 2560}


def kernel_zeros(model):
    return {
        name: np.mean(keras.ops.convert_to_numpy(model.get_layer(name).kernel) == 0)
        for name in KERNELS
    }


def test_inspect_shows_the_layers_and_what_would_be_pruned(run, model_file):
    result = run("inspect", model_file, "--sparsity", "0.75")
    assert result.exit_code == 0, result.stderr
    for text in (
        "stem",
        "body",
        "head",
        "1,152",
        "75.00 %",
        "75.00 % zeros in 3,784 of 3,818 parameters",
    ):
        assert text in result.stdout


def test_inspect_as_json_holds_the_profile_and_the_plan(run, model_file):
    result = run("inspect", model_file, "--json", "--exclude", "head")
    found = json.loads(result.stdout)
    assert found["model"] == str(model_file)
    assert found["profile"]["parameters"] == sum(KERNELS.values()) + 8 + 16 + 10
    rows = {row["path"]: row for row in found["plan"]["rows"]}
    assert rows["stem/kernel"]["sparsity"] == pytest.approx(0.8, abs=0.01)
    assert rows["stem/kernel"]["reason"] == ""
    assert rows["head/kernel"]["reason"]


def test_inspect_of_a_model_with_nothing_to_prune_shows_its_profile_and_says_why(run, tmp_path):
    path = tmp_path / "norm.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(name="norm")]).save(path)
    result = run("inspect", path)
    assert result.exit_code == 1
    assert "norm" in result.stdout
    assert result.stderr.startswith("error: There is nothing to prune")


def test_the_pattern_xnnpack_prunes_what_phones_run_sparse(run, tmp_path):
    path, layers = tmp_path / "mobile.keras", keras.layers
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.ZeroPadding2D(1)])
    model.add(layers.Conv2D(8, 3, strides=2, name="stem"))
    model.add(layers.Conv2D(256, 1, name="body"))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(2, name="head"))
    model.save(path)
    result = run("inspect", path, "--pattern", "xnnpack", "-s", "0.5")
    assert result.exit_code == 0, result.stderr
    assert "dense: would gain nothing: a 3x3 convolution" in " ".join(result.stdout.split())
    assert "warning: XNNPACK's sparse mode runs 1 kernel" in result.stdout
    output = tmp_path / "out.keras"
    result = run("prune", path, "--pattern", "xnnpack", "-s", "0.75", "-o", output)
    assert result.exit_code == 0, result.stderr
    assert kernel_zeros(keras.models.load_model(output)) == {"stem": 0, "body": 0.75, "head": 0}


def test_prune_writes_a_model_with_the_sparsity_asked_for(run, model_file, tmp_path):
    output = tmp_path / "out.keras"
    result = run("prune", model_file, "--sparsity", "0.75", "--output", output)
    assert result.exit_code == 0, result.stderr
    assert f"Written to {output}" in result.stdout.replace("\n", "")
    assert "75.00 % zeros in 3,784 of 3,818 parameters" in result.stdout
    assert list(kernel_zeros(keras.models.load_model(output)).values()) == [0.75] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["out.keras"]


def test_prune_writes_beside_the_model_unless_told_otherwise(run, model_file, tmp_path):
    model = tmp_path / "net.keras"
    model.write_bytes(model_file.read_bytes())
    assert run("prune", model, "-s", "0.5").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net-pruned.keras", "net.keras"]
    assert model.read_bytes() == model_file.read_bytes()


def test_prune_takes_names_and_regular_expressions(run, model_file, tmp_path):
    output = tmp_path / "out.keras"
    result = run(
        *("prune", model_file, "-s", "0.5", "-o", output, "--json", "--pattern", "2:4"),
        *("--include", "head", "--include", "re:bod.", "--exclude", "head"),
    )
    written = json.loads(result.stdout)
    assert written["output"] == str(output)
    found = [(row["path"].split("/")[-2], row["sparsity"]) for row in written["kernels"]["rows"]]
    assert [row for row in found if row[1] is not None] == [
        ("stem", 0),
        ("body", 0.5),
        ("head", 0),
    ]
    assert kernel_zeros(keras.models.load_model(output)) == {"stem": 0, "body": 0.5, "head": 0}


def test_the_paths_that_inspect_shows_can_be_given_to_prune(run, model_file, tmp_path):
    rows = json.loads(run("inspect", model_file, "--json").stdout)["plan"]["rows"]
    path = next(row["path"] for row in rows if row["path"].endswith("head/kernel"))
    result = run("prune", model_file, "-s", "0.5", "-o", tmp_path / "o.keras", "--include", path)
    assert result.exit_code == 0


def test_prune_shows_the_zeros_of_a_depthwise_kernel_that_was_asked_for(run, tmp_path):
    layers = [keras.Input((8, 8, 16)), keras.layers.DepthwiseConv2D(3, name="depth")]
    keras.Sequential(layers).save(tmp_path / "net.keras")
    result = run("prune", tmp_path / "net.keras", "-s", "0.5", "--include", "depth", "--json")
    assert json.loads(result.stdout)["kernels"]["sparsity"] == 0.5


def test_prune_replaces_a_file_only_when_forced(run, model_file, tmp_path):
    model = tmp_path / "net.keras"
    model.write_bytes(model_file.read_bytes())
    refused = run("prune", model, "-s", "0.5", "-o", model)
    assert refused.exit_code == 1
    assert "exists. Pass --force" in refused.stderr
    assert model.read_bytes() == model_file.read_bytes()
    assert run("prune", model, "-s", "0.5", "-o", model, "--force").exit_code == 0
    assert kernel_zeros(keras.models.load_model(model))["head"] == 0.5


def test_export_writes_verified_artifacts(run, model_file, tmp_path):
    result = run("export", model_file, tmp_path / "build")
    assert result.exit_code == 0, result.stderr
    assert "verified on 16 examples of random inputs" in result.stdout
    assert (tmp_path / "build" / "saved_model").is_dir()
    assert (tmp_path / "build" / "model.tflite").is_file()


def test_export_calibrates_and_verifies_on_the_given_inputs(run, model_file, tmp_path):
    data = tmp_path / "data.npy"
    np.save(data, np.random.default_rng(0).random((20, 8, 8, 1), np.float32))
    result = run(
        *("export", model_file, tmp_path / "build", "--formats", "tflite, tflite_int8"),
        *("--representative-data", data, "--batch-size", "2", "--json"),
    )
    report = json.loads(result.stdout)
    assert [artifact["name"] for artifact in report["artifacts"]] == ["tflite", "tflite_int8"]
    assert report["verification"] == report["representative"]
    assert report["verification"].startswith("20 examples")
    assert report["batch_size"] == 2


def test_export_takes_the_arrays_of_several_inputs_by_name(run, tmp_path):
    inputs = {name: keras.Input((3,), name=name) for name in ("left", "right")}
    keras.Model(inputs, keras.layers.Add()(list(inputs.values()))).save(tmp_path / "add.keras")
    data = tmp_path / "data.npz"
    np.savez(data, right=np.ones((5, 3), np.float32), left=np.zeros((5, 3), np.float32))
    result = run(
        *("export", tmp_path / "add.keras", tmp_path / "build", "--formats", "tflite"),
        *("--representative-data", data, "--json"),
    )
    assert json.loads(result.stdout)["verification"].startswith("5 examples")


def test_export_of_a_model_with_open_sizes_needs_an_input_shape(run, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Conv2D(4, 3, name="conv"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
        ]
    )
    model.save(tmp_path / "open.keras")
    arguments = ("export", tmp_path / "open.keras", tmp_path / "build", "--formats", "tflite")
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "input_shape" in refused.stderr
    assert run(*arguments, "--input-shape", "16,16,1").exit_code == 0


def test_the_output_of_one_command_is_the_input_of_the_next(run, model_file, tmp_path):
    run("prune", model_file, "-s", "0.9", "-o", tmp_path / "sparse.keras")
    result = run("export", tmp_path / "sparse.keras", tmp_path / "build", "--json")
    for artifact in json.loads(result.stdout)["artifacts"]:
        assert artifact["sparsity"] == pytest.approx(0.9, abs=0.001)


def test_a_model_saved_with_its_pruning_wrappers_can_be_inspected_and_exported(
    run, model_file, tmp_path
):
    import tfprune

    path = tmp_path / "wrapped.keras"
    tfprune.prune(keras.models.load_model(model_file), schedule=0.5).save(path)
    assert run("inspect", path).exit_code == 0
    assert run("export", path, tmp_path / "build", "--formats", "tflite").exit_code == 0


def test_json_on_stdout_is_not_mixed_with_anything_else(model_file, tmp_path):
    # In a process of its own: what native code and Keras print reaches the real stdout.
    done = subprocess.run(
        [sys.executable, "-m", "tfprune", "export", model_file, tmp_path / "build", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout)["model"]
    assert "error" not in done.stderr.lower()
    assert "oneDNN" not in done.stderr
    assert "XNNPACK" not in done.stderr

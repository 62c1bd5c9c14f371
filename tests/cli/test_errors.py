"""What goes wrong ends in one line on stderr and in an exit code."""

import os

import numpy as np
import pytest

from tfprune.cli.console import native_chatter_dropped


def assert_one_line_error(result, message, exit_code=1):
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.keras", "does not exist"),
        ("model.onnx", "unknown model format '.onnx'. Expected one of .keras, .h5, .hdf5"),
        ("folder", "is a folder"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "prune", "export"])
def test_a_path_that_is_no_model_is_refused(run, tmp_path, command, name, message):
    (tmp_path / "folder").mkdir()
    more = {"inspect": [], "prune": ["-s", "0.5"], "export": [tmp_path / "build"]}
    assert_one_line_error(run(command, tmp_path / name, *more[command]), message)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_damaged_model_file_is_named(run, model_file, tmp_path, suffix):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(model_file.read_bytes()[:1000])
    assert_one_line_error(run("inspect", path), f"Cannot load {path}")


def test_a_class_that_is_not_registered_is_named(run, tmp_path):
    import keras

    class Unknown(keras.layers.Dense):
        pass

    path = tmp_path / "custom.keras"
    keras.Sequential([keras.Input((2,)), Unknown(3)]).save(path)
    assert_one_line_error(run("inspect", path), "Could not locate class 'Unknown'")


def test_a_lambda_in_a_model_is_not_run(run, tmp_path):
    import keras

    path = tmp_path / "lambda.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)]).save(path)
    assert_one_line_error(run("inspect", path), "no Python code from a file is run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--criterion", "magic"], "magic"),
        (["--pattern", "3:2"], "N:M keeps n of every m"),
        (["--allocation", "fair"], "fair"),
        (["--include", "absent"], "absent"),
        (["--exclude", "re:nothing"], "nothing"),
    ],
)
def test_what_the_library_refuses_is_one_line(run, model_file, tmp_path, arguments, message):
    output = tmp_path / "out.keras"
    result = run("prune", model_file, "-s", "0.5", "-o", output, *arguments)
    assert_one_line_error(result, message)
    assert not output.exists()


def test_an_output_folder_that_does_not_exist_is_refused_before_the_work(run, model_file):
    result = run("prune", model_file, "-s", "0.5", "-o", "absent/out.keras")
    assert_one_line_error(result, "absent is not a folder")


@pytest.mark.parametrize(
    "arguments",
    [
        ["prune", "net.keras", "--sparsity", "80"],
        ["prune", "net.keras"],
        ["prune", "net.keras", "-s", "0.5", "--include", "re:("],
        ["prune", "net.keras", "-s", "0.5", "--output", "net.h5"],
        ["export", "net.keras", "build", "--input-shape", "large"],
        ["export", "net.keras", "build", "--batch-size", "0"],
        ["demo", "--epochs", "0"],
        ["convert", "net.keras"],
    ],
)
def test_wrong_usage_ends_with_exit_code_2(run, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.keras").touch()
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_an_unknown_export_format_is_refused_with_the_known_ones(run, model_file, tmp_path):
    result = run("export", model_file, tmp_path / "build", "--formats", "tflite,gguf")
    assert_one_line_error(result, "tflite_int8")
    assert not (tmp_path / "build").exists()


def test_an_integer_format_without_data_is_refused(run, model_file, tmp_path):
    result = run("export", model_file, tmp_path / "build", "--formats", "tflite_int8")
    assert_one_line_error(result, "representative_data")


@pytest.mark.parametrize("content", [b"", b"no numpy", b"PK\x03\x04 and so on"])
def test_a_damaged_data_file_is_named(run, model_file, tmp_path, content):
    data = tmp_path / "data.npz"
    data.write_bytes(content)
    result = run("export", model_file, tmp_path / "build", "--representative-data", data)
    assert_one_line_error(result, f"Cannot read {data} as numpy data")


def test_pickled_data_is_not_loaded(run, model_file, tmp_path):
    data = tmp_path / "data.npy"
    np.save(data, np.array([{"an": "object"}]), allow_pickle=True)
    result = run("export", model_file, tmp_path / "build", "--representative-data", data)
    assert_one_line_error(result, "Object arrays cannot be loaded")


def test_data_that_does_not_fit_the_model_is_refused(run, model_file, tmp_path):
    data = tmp_path / "data.npy"
    np.save(data, np.zeros((4, 9, 9, 1), np.float32))
    result = run("export", model_file, tmp_path / "build", "--representative-data", data)
    assert_one_line_error(result, "(examples, 8, 8, 1)")


def test_an_artifact_that_fails_verification_ends_with_exit_code_3(run, tmp_path):
    import keras

    path = tmp_path / "broken.keras"
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    model.set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    model.save(path)
    result = run("export", path, tmp_path / "build")
    assert_one_line_error(result, "NaN", exit_code=3)
    assert not (tmp_path / "build").exists()


def test_errors_of_native_code_are_shown_and_its_chatter_is_not(capfd):
    with native_chatter_dropped():
        os.write(2, b"I0000 00:00:1795425217.288169    4092 port.cc:153] oneDNN is on.\n")
        os.write(2, b"E0000 00:00:1795425217.288169    4092 gpu.cc:1] out of memory\n")
    assert capfd.readouterr().err.endswith("gpu.cc:1] out of memory\n")


def test_nothing_that_native_code_said_before_an_exception_is_lost(capfd):
    def fail():
        with native_chatter_dropped():
            os.write(2, b"I0000 00:00:1795425217.288169    4092 port.cc:153] a hint\n")
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        fail()
    assert "a hint" in capfd.readouterr().err

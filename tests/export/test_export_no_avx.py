"""The exported files on a processor without AVX, where XNNPACK takes other code paths."""

import shutil

import keras
import numpy as np
import pytest

import tfprune

QEMU = shutil.which("qemu-x86_64")


@pytest.mark.skipif(QEMU is None, reason="needs qemu: apt-get install qemu-user")
def test_a_sparse_model_computes_the_same_without_avx(tmp_path, run_python):
    layers = keras.layers
    inputs = x = keras.Input((32, 32, 3))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    for _ in range(2):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
        x = layers.Conv2D(32, 1, activation="relu")(x)
    outputs = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    sparse = tfprune.prune_once(keras.Model(inputs, outputs), 0.9)
    formats = ["tflite", "tflite_float16", "tflite_dynamic"]
    tfprune.export_model(sparse, tmp_path / "build", formats)
    data = np.random.default_rng(0).random((1, 32, 32, 3), dtype=np.float32)
    np.save(tmp_path / "input.npy", data)
    np.save(tmp_path / "expected.npy", sparse(data))
    run_python(
        f"""
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter
        folder = {str(tmp_path)!r}
        expected = np.load(folder + "/expected.npy")
        for name, tolerance in (("model", 1e-4), ("model_float16", 1e-2), ("model_dynamic", 5e-2)):
            interpreter = Interpreter(folder + f"/build/{{name}}.tflite", num_threads=1)
            interpreter.allocate_tensors()
            interpreter.set_tensor(
                interpreter.get_input_details()[0]["index"], np.load(folder + "/input.npy")
            )
            interpreter.invoke()
            output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
            difference = np.abs(output - expected).max() / np.abs(expected).max()
            assert difference < tolerance, (name, difference)
        """,
        QEMU,
        "-cpu",
        "Nehalem",
    )

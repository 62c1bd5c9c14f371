"""What of the GPU benchmark needs no GPU: which kernels it takes, its table, its refusal."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

from benchmarks import common, gpu


def two_of_four(inputs, outputs, taps=1):
    kernel = np.zeros((taps, inputs, outputs), np.float32)
    kernel[:, ::4] = 1
    kernel[:, 1::4] = 2
    return kernel


@pytest.fixture
def file(tmp_path):
    conv = two_of_four(16, 32, taps=4)
    kernels = {
        "fits": two_of_four(64, 32)[0],
        "conv": conv.transpose(2, 1, 0).reshape(32, 16, 2, 2),
        "dense": np.ones((64, 32), np.float32),
        "narrow": two_of_four(64, 8)[0],
        "odd": two_of_four(6, 32)[0],
    }
    nodes = [
        onnx.helper.make_node("Conv" if name == "conv" else "MatMul", ["x", name], [f"{name}_y"])
        for name in kernels
    ]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in kernels.items()]
    graph = onnx.helper.make_graph(nodes, "kernels", [], [], tensors)
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph), path)
    return path


def test_kernels_whose_shape_or_pattern_does_not_fit_are_skipped_with_the_reason(file):
    taken, skipped = gpu.products(file)
    assert {product.name: product.matrix.shape for product in taken} == {
        "fits": (32, 64),
        "conv": (32, 64),
    }
    assert "no 2:4" in skipped["dense"]
    assert "8x64 is no multiple of 32x64" in skipped["narrow"]
    assert "6 inputs" in skipped["odd"]


def test_every_four_neighbours_in_a_row_of_a_matrix_hold_two_values(file):
    for product in gpu.products(file)[0]:
        groups = product.matrix.reshape(product.matrix.shape[0], -1, 4)
        assert (np.count_nonzero(groups, axis=2) == 2).all()


def test_the_table_names_the_device_the_gain_and_what_was_left_out(monkeypatch):
    monkeypatch.setattr(common, "command", lambda: "python -m benchmarks.gpu model.onnx")
    monkeypatch.setattr(common, "environment", lambda: {"versions": "tfprune 0"})
    row = {"name": "fits", "rows": 32, "inner": 64, "dense": 0.3, "sparse": 0.2, "gain": 1.5,
           "difference": 1e-3}  # fmt: skip
    text = gpu.report([row], {"odd": "6 inputs"}, "Test GPU", 4096, "model.onnx")
    assert "| fits | 32x64 | 0.3000 | 0.2000 | 1.50x | 1.0e-03 |" in text
    assert "on Test GPU" in text
    assert "- odd: 6 inputs" in text


@pytest.mark.skipif(not gpu.obstacle(), reason="there is a GPU, so it would be measured")
def test_without_a_gpu_it_says_so_and_writes_nothing(file):
    before = sorted(common.RESULTS.iterdir())
    command = [sys.executable, "-m", "benchmarks.gpu", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=common.ROOT)
    assert (result.returncode, len(result.stdout.splitlines())) == (0, 1)
    assert "Nothing was measured and nothing written" in result.stdout
    assert sorted(common.RESULTS.iterdir()) == before

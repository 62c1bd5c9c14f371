"""`tfprune bench` measures runtimes, and `check --fix` predicts with what it found."""

import json

import pytest

from tests.export.sparse_runtime.compiler.test_driver import residual
from tfprune.errors import ArtifactError
from tfprune.export.sparse_runtime.compiler import CostModel


def test_a_cost_model_is_fitted_and_used(run, tmp_path):
    result = run("bench", "--fit-cost-model", "native", "-o", tmp_path / "costs.json", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == json.loads((tmp_path / "costs.json").read_text())
    net, output = residual()
    path = tmp_path / "net.tflite"
    path.write_bytes(net.written(output))
    free = {**json.loads((tmp_path / "costs.json").read_text()), "dense_mac": 10.0}
    (tmp_path / "costs.json").write_text(json.dumps(free))
    fixed = tmp_path / "fixed.tflite"
    result = run("check", path, "--fix", fixed, "--costs", tmp_path / "costs.json")
    assert result.exit_code == 0, result.stderr
    assert "runs sparse" in result.stdout


def test_a_runtime_that_is_none(run, tmp_path):
    result = run("bench", "--fit-cost-model", "toaster", "-o", tmp_path / "costs.json")
    assert result.exit_code == 1
    assert "Received: 'toaster'" in result.stderr


@pytest.mark.parametrize("content", ["", "[]", '{"call": 1}', '{"tap9": 1}'])
def test_a_file_that_is_no_cost_model(content, tmp_path):
    (tmp_path / "costs.json").write_text(content)
    with pytest.raises(ArtifactError, match="is no cost model"):
        CostModel.read(tmp_path / "costs.json")

"""Files of anyone's making, fixed."""

import pytest

from tests.export.sparse_runtime.compiler.networks import Network, apart, run
from tests.export.sparse_runtime.compiler.test_driver import head, mixed, naive, residual
from tfprune.errors import ArtifactError, UnsupportedModelError
from tfprune.export.sparse_runtime import check_file, fix_file


@pytest.fixture
def write(tmp_path):
    def write(content):
        (tmp_path / "model.tflite").write_bytes(content)
        return tmp_path / "model.tflite"

    return write


def test_a_dense_file_is_made_to_run_sparse(write, tmp_path):
    net, output = residual()
    path = write(net.written(output))
    fixed = fix_file(path, tmp_path / "fixed.tflite")
    assert fixed.report.runs_sparse
    assert "x as fast" in fixed.note
    assert fixed.max_difference < 1e-5
    assert apart(run((tmp_path / "fixed.tflite").read_bytes()), run(path.read_bytes())) < 1e-5
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize("build", [mixed, head])
def test_a_trap_is_gone_whether_it_gains_or_not(build, write, tmp_path):
    path = write(naive(*build()))
    assert check_file(path).traps
    fixed = fix_file(path, tmp_path / "fixed.tflite")
    assert not check_file(tmp_path / "fixed.tflite").traps
    assert fixed.max_difference < 1e-5


def test_what_would_not_gain_is_left_alone(write, tmp_path):
    net = Network((8, 8, 4))
    path = write(net.written(net.mean(net.conv(net.inputs[0], 4, 3))))
    with pytest.raises(UnsupportedModelError, match="best left as it is"):
        fix_file(path, tmp_path / "fixed.tflite")
    assert not (tmp_path / "fixed.tflite").exists()


def test_a_target_that_cannot_be_written(write, tmp_path):
    net, output = residual()
    path = write(net.written(output))
    with pytest.raises(ArtifactError, match="Cannot write"):
        fix_file(path, tmp_path / "missing" / "fixed.tflite")

"""The README's Python runs, and its shell commands do what they say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = "".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
COMMANDS = re.findall(r"^tfprune .*$", SHELL, re.MULTILINE)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.split("\n")[-2][:40])
def test_every_python_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_the_shell_commands_run_one_after_the_other(dense_net, tmp_path):
    assert len(COMMANDS) == 8
    dense_net.save(tmp_path / "model.keras")
    for command in COMMANDS:
        arguments = command.split()[1:]
        subprocess.run([sys.executable, "-m", "tfprune", *arguments], cwd=tmp_path, check=True)
    assert (tmp_path / "build" / "model_float16.tflite").exists()
    assert (tmp_path / "gpu" / "model.onnx").exists()
    sparse = keras.models.load_model(tmp_path / "sparse.keras")
    assert (sparse.layers[0].kernel.numpy() == 0).mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_environment(tmp_path):
    root = Path(__file__).parents[1]
    source = tmp_path / "source"
    shutil.copytree(root / "tfprune", source / "tfprune")
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "build", "--wheel", source], check=True)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    (wheel,) = (source / "dist").glob("*.whl")
    constraints = root / "constraints.txt"
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, wheel], check=True)
    subprocess.run([python.with_name("tfprune"), "--version"], cwd=tmp_path, check=True)
    script = "import keras, tfprune; tfprune.prune(keras.layers.Dense(3), 0.5)"
    subprocess.run([python, "-c", script], cwd=tmp_path, check=True)

"""`tfprune shrink` and `tfprune inspect --channels` on a real model."""

import json

import keras
import pytest

from tfprune.structured import ShrinkHistory, replay


def test_shrink_writes_a_smaller_model_and_its_history(run, model_file, tmp_path):
    output, history = tmp_path / "small.keras", tmp_path / "cut.json"
    result = run(
        "shrink", model_file, "--target", "0.5", "--output", output, "--history", history, "--json"
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["difference"] < 1e-5
    small, original = keras.models.load_model(output), keras.models.load_model(model_file)
    assert [small.get_layer(name).filters for name in ("stem", "body")] == [4, 8]
    assert found["after"]["parameters"] == small.count_params() < found["before"]["parameters"]
    again = replay(original, ShrinkHistory.load(history))
    assert again.count_params() == small.count_params()


def test_shrink_shows_before_and_after(run, model_file, tmp_path):
    result = run(
        "shrink", model_file, "-t", "flops=0.6", "-o", tmp_path / "s.keras", "--scope", "global"
    )
    assert result.exit_code == 0, result.stderr
    for text in (
        "parameters",
        "MACs",
        "x fewer",
        "FLOPs remain, and",
        "tensors compared",
        "Written to",
    ):
        assert text in result.stdout


def test_inspect_shows_groups_and_what_is_frozen(run, model_file):
    result = run("inspect", model_file, "--channels")
    assert result.exit_code == 0, result.stderr
    assert "body (reads)" in result.stdout
    assert "frozen: 10 of head (an output of the model)" in result.stdout.replace("\n", "")
    found = json.loads(run("inspect", model_file, "--channels", "--json").stdout)
    stem = found["channels"]["groups"][0]
    # Kernel and bias of the stem, and all of the kernel that reads it.
    assert (stem["name"], stem["channels"], stem["parameters"]) == ("stem", 8, 72 + 8 + 1152)


@pytest.mark.parametrize("target", ["half", "speed=2", "flops=fast", "flops="])
def test_a_target_that_is_none_is_wrong_usage(run, model_file, target):
    result = run("shrink", model_file, "--target", target)
    assert result.exit_code == 2
    assert "--target: expected" in result.stderr.replace("\n", " ")


def test_a_target_out_of_reach_is_an_error_and_leaves_no_file(run, model_file, tmp_path):
    output = tmp_path / "out.keras"
    result = run("shrink", model_file, "--target", "parameters=10", "--output", output)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: The target is out of reach")
    assert not output.exists()

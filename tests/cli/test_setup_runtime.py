"""`tfprune setup-runtime`: what is there, and what a wrong name says."""

import json


def test_runtimes_are_listed_with_what_is_missing(run):
    result = run("setup-runtime", "--json")
    assert result.exit_code == 0, result.stderr
    runtimes = {entry["name"]: entry for entry in json.loads(result.stdout)["runtimes"]}
    assert list(runtimes) == ["native", "no-avx", "arm64", "wasm"]
    assert runtimes["native"]["missing"] == ""
    assert "tfprune setup-runtime wasm" in runtimes["wasm"]["missing"]
    assert "LiteRT on this machine" in run("setup-runtime").stdout


def test_an_unknown_runtime_is_a_usage_error(run):
    result = run("setup-runtime", "phone")
    assert result.exit_code == 2
    assert "arm64, wasm" in result.stderr


def test_a_set_up_that_needs_a_package_says_which(run, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    result = run("setup-runtime", "arm64")
    assert result.exit_code == 1
    assert "apt-get install qemu-user" in result.stderr

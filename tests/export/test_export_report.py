"""The report as a value: numbers measured as documented, and the same after a round trip."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from tfprune.errors import ArtifactError
from tfprune.export import ArtifactReport, ExportReport
from tfprune.export.report import RuntimeReport, gzip_size, zero_fraction


def artifact(name, size, gzip_bytes, latency):
    return ArtifactReport(
        name=name,
        file=f"{name}.bin",
        bytes=size,
        gzip_bytes=gzip_bytes,
        sparsity=0.875,
        max_difference=0.012,
        tolerance=0.1,
        agreement=0.98,
        clear_agreement=1.0,
        clear_inputs=94,
        latency_ms=latency,
        runs=20,
        threads=1,
        runtime="ai-edge-litert 2.3.0",
    )


@pytest.fixture
def report():
    artifacts = (
        artifact("a", 3000, 100, 2.0),
        artifact("b", 2000, 300, 1.5),
        artifact("c", 9, 400, 3),
    )
    return ExportReport("net", artifacts, 1, "100 examples of `x`", None, "build")


def test_the_best_artifacts_are_named(report):
    assert (report.smallest, report.smallest_gzip, report.fastest) == ("c", "a", "b")
    assert report.path("a").as_posix() == "build/a.bin"


def test_a_report_survives_json(report, tmp_path):
    (tmp_path / "report.json").write_text(report.to_json())
    loaded = ExportReport.load(tmp_path)
    assert loaded.artifacts == report.artifacts
    assert loaded.to_dict() == report.to_dict()
    assert json.loads(report.to_json())["fastest"] == "b"


def test_several_runtimes_are_a_table_and_missing_ones_a_line(report, tmp_path):
    assert not report.runtime_rows
    assert not report.missing_note
    runtimes = (
        RuntimeReport("native", "ai-edge-litert 2.3.0", 1e-7, 16, 0.5, 20),
        RuntimeReport("wasm", "LiteRT.js 2.5.3", 2e-7, 2, 1.25, 10),
    )
    sparse = replace(report.artifacts[0], runtimes=runtimes)
    missing = {"arm64": "tfprune setup-runtime arm64"}
    report = replace(report, artifacts=(sparse, *report.artifacts[1:]), missing_runtimes=missing)
    (tmp_path / "report.json").write_text(report.to_json())
    assert replace(ExportReport.load(tmp_path), directory="build") == report
    lines = [" ".join(line.split()) for line in str(report).splitlines()]
    assert lines[-3:] == [
        "same on native wasm",
        "a 1.0e-07, 0.5 ms 2.0e-07, 1.25 ms",
        "sparse files were not run on arm64 (tfprune setup-runtime arm64)",
    ]


def test_an_artifact_that_was_not_exported_is_a_key_error_with_the_names(report):
    with pytest.raises(KeyError, match="'d' was not exported"):
        report["d"]


@pytest.mark.parametrize("text", [None, "{", "{}", '{"tfprune_export": 99}'])
def test_a_folder_without_a_readable_report_is_an_error(tmp_path, text):
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(ArtifactError, match="is not the report of an export"):
        ExportReport.load(tmp_path)


def test_the_table_is_aligned_and_complete(report):
    lines = str(report).splitlines()
    assert lines[0] == "Export of 'net' to build"
    header, rule, *rows = lines[2:7]
    assert all(len(line) == len(rule) for line in (header, *rows))
    expected = "a a.bin 3,000 100 87.5% 1.2e-02 1e-01 98.0% 100.0% of 94 2.000 ms 1"
    assert " ".join(rows[0].split()) == expected
    assert "smallest: c (compressed: a), fastest here: b" in lines


def test_sparsity_counts_negative_zeros_and_all_tensors_together():
    assert zero_fraction([np.array([[0.0, -0.0, 1.0]]), np.array([[2]])]) == 0.5
    assert zero_fraction([]) is None


def test_the_gzip_size_of_a_folder_is_the_sum_over_its_files(tmp_path, rng):
    contents = [rng.integers(0, 5, 1_200_000).astype("uint8").tobytes(), b""]
    (tmp_path / "sub").mkdir()
    for name, content in zip(("a", "sub/b"), contents, strict=True):
        (tmp_path / name).write_bytes(content)
    expected = sum(len(gzip.compress(content, 9)) for content in contents)
    assert gzip_size(tmp_path) == expected

"""Unit costs are found again from times that they were made of."""

from dataclasses import asdict, replace

import pytest

from tests.export.sparse_runtime.compiler.networks import run
from tfprune.export.sparse_runtime.check import check_graph
from tfprune.export.sparse_runtime.compiler.costs import WASM
from tfprune.export.sparse_runtime.compiler.fitting import fit_cost_model, probes
from tfprune.export.sparse_runtime.compiler.writing import write_program
from tfprune.export.sparse_runtime.graph import parse_graph


def test_unit_costs_are_found_again():
    truth = replace(WASM, dense_mac=0.11, sparse_mac=0.03, tap3=0.4, value=0.09, sparse_write=0.02)
    every_call = 0.05
    times = iter([every_call + truth.total(program.ops) for program in probes()])
    found = fit_cost_model(lambda content, inputs: next(times))
    for unit in ("dense_mac", "sparse_mac", "tap3", "tap5"):
        assert asdict(found)[unit] == pytest.approx(asdict(truth)[unit], rel=0.1), unit
    for program in probes():
        assert found.total(program.ops) == pytest.approx(truth.total(program.ops), rel=0.1)


def test_probes_run_and_those_inside_are_clusters():
    for number, program in enumerate(probes()):
        content = write_program(program)
        report = check_graph(parse_graph(content), "")
        assert not report.traps
        if number % 5 == 0:
            assert run(content)

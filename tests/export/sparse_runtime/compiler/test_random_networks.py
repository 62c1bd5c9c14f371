"""Compiled random networks are right where sparse mode is on, whatever the cost model prefers."""

from dataclasses import replace

import numpy as np
import pytest

from tests.export.sparse_runtime.compiler.networks import apart
from tests.export.sparse_runtime.compiler.no_avx import QEMU, outputs, run_without_avx
from tests.export.sparse_runtime.compiler.random_networks import random_network
from tfprune.errors import UnsupportedModelError
from tfprune.export.sparse_runtime.compiler import compile_file
from tfprune.export.sparse_runtime.compiler.costs import WASM

TOLERANCE = 1e-5


def compiled(seed):
    """Return a network as it is, inputs, and it compiled; None if nothing of it may run sparse."""
    net, results = random_network(seed)
    dense = net.written(*results)
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=tensor.shape).astype(np.float32) for tensor in net.inputs]
    # Other prices lead to other borders. Half of the networks go inside as far as they can.
    costs = replace(
        WASM, entry=rng.exponential(0.5), dense_mac=rng.exponential(0.5), tap3=rng.exponential(0.3)
    )
    try:
        return dense, inputs, compile_file(dense, costs=costs, eager=seed % 2 == 0)
    except UnsupportedModelError:
        return None


@pytest.mark.skipif(QEMU is None, reason="needs qemu: apt-get install qemu-user")
@pytest.mark.parametrize(
    "seeds",
    [range(25), pytest.param(range(25, 325), marks=pytest.mark.slow)],
    ids=["few", "many"],
)
def test_random_networks_are_right_with_sparse_mode_on(seeds, tmp_path):
    cases = {seed: case for seed in seeds if (case := compiled(seed)) is not None}
    assert len(cases) > len(seeds) / 2
    contents = [case.content for _, _, case in cases.values()]
    found = run_without_avx(contents, [inputs for _, inputs, _ in cases.values()], tmp_path)
    wrong = {}
    for (seed, (dense, inputs, case)), elsewhere in zip(cases.items(), found, strict=True):
        expected = outputs(dense, inputs)
        assert not case.report.traps
        assert case.report.runs_sparse
        native = apart(outputs(case.content, inputs), expected)
        without_avx = np.inf if isinstance(elsewhere, str) else apart(elsewhere, expected)
        if not max(native, without_avx) < TOLERANCE:
            wrong[seed] = native, without_avx, elsewhere
    assert not wrong

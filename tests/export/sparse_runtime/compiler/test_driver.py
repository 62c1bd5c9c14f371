"""Whole files: what is compiled, what is left alone and why, and that no trap is ever written."""

from dataclasses import replace

import numpy as np
import pytest

from tests.export.sparse_runtime.compiler.networks import Network, apart, run
from tests.export.sparse_runtime.compiler.no_avx import QEMU, outputs, run_without_avx
from tfprune.errors import UnsupportedModelError
from tfprune.export.sparse_runtime.check import check_graph
from tfprune.export.sparse_runtime.compiler import compile_file
from tfprune.export.sparse_runtime.compiler.costs import WASM
from tfprune.export.sparse_runtime.compiler.lowering import Context
from tfprune.export.sparse_runtime.compiler.reading import read_program
from tfprune.export.sparse_runtime.compiler.transform import transformed
from tfprune.export.sparse_runtime.compiler.verify import excess_pieces
from tfprune.export.sparse_runtime.compiler.writing import write_program
from tfprune.export.sparse_runtime.graph import parse_graph

needs_qemu = pytest.mark.skipif(QEMU is None, reason="needs qemu: apt-get install qemu-user")
EVEN = ((1, 1), (1, 1))


def residual(channels=64, size=(32, 32, 3), sparsity=0.9):
    """A small residual network of ordinary convolutions."""
    net = Network(size, sparsity=sparsity)
    x = net.max_pool(net.conv(net.inputs[0], channels, 7, 2, activation=1), 3, 2, "same")
    for stride in (1, 2):
        shortcut = x if stride == 1 else net.conv(x, 2 * channels, 1, 2)
        outputs = shortcut.shape[3]
        y = net.conv(x, outputs, 3, stride, "same" if stride == 1 else EVEN, activation=1)
        x = net.add(net.conv(y, outputs, 3), shortcut, activation=1)
    return net, net.dense(net.mean(x), 10)


def test_a_residual_network_runs_sparse_behind_its_stem():
    net, output = residual()
    content = net.written(output)
    compiled = compile_file(content)
    assert compiled.report.runs_sparse
    assert not compiled.report.traps
    assert compiled.gain > 1.2
    assert sum(compiled.outside.values()) <= 1
    assert apart(run(compiled.content), run(content)) < 1e-5


def test_the_more_zeros_the_more_is_gained():
    gains = []
    for sparsity in (0.8, 0.9, 0.95):
        net, output = residual(sparsity=sparsity)
        gains.append(compile_file(net.written(output)).gain)
    assert gains == sorted(gains)


def test_float16_weights_stay_float16():
    net, output = residual()
    program = net.program(output)
    for op in program.ops:
        for tensor in op.inputs[1:]:
            if tensor is not None and tensor.is_constant and tensor.dtype == "FLOAT32":
                tensor.values = tensor.values.astype(np.float16).astype(np.float32)
    program.float16 = True
    half = write_program(program)
    program.float16 = False
    full = write_program(program)
    compiled = compile_file(half)
    assert apart(run(compiled.content), run(half)) < 1e-5
    assert len(compiled.content) < 0.75 * len(compile_file(full).content)


def test_what_is_dense_by_the_prices_stays_outside():
    net = Network((16, 16, 3))
    x = net.conv(net.inputs[0], 48, 3, 1, activation=1)
    x = net.conv(net.conv(x, 64, 1), 64, 3, dilation=2)
    y = net.mean(net.conv(x, 64, 3))
    compiled = compile_file(net.written(y), eager=True)
    assert any("dilated" in reason for reason in compiled.outside)
    # A 1x1 convolution outside must not look like one inside.
    outside = [op for op in read_program(compiled.content).ops if op.code == "CONV_2D"]
    assert {op.options.dilationHFactor for op in outside} == {1, 2}


@pytest.mark.parametrize("turned", [False, True])
def test_mobile_networks_need_no_gate(turned):
    net = Network((32, 32, 3))
    pads = "same" if turned else EVEN
    x = net.conv(net.inputs[0], 16, 3, 2, pads, activation=1)
    for stride in (1, 2):
        x = net.depthwise(x, 3, stride, "same" if stride == 1 else pads, activation=1)
        x = net.conv(x, 48, 1, activation=1)
    compiled = compile_file(net.written(net.dense(net.mean(x), 10)))
    names = [op.name for op in parse_graph(compiled.content).operators]
    assert "DEPTH_TO_SPACE" not in names
    assert compiled.is_turned == turned
    assert ("REVERSE_V2" in names) == turned


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda net, x: net.dense(net.mean(x), 4), "no convolutions"),
        (lambda net, x: net.mean(net.conv(x, 4, 3, dilation=2)), "nothing|none|no operator"),
    ],
    ids=["no convolutions", "dilated only"],
)
def test_what_cannot_run_sparse_is_refused_with_the_reason(build, words):
    net = Network((8, 8, 4))
    content = net.written(build(net, net.inputs[0]))
    with pytest.raises(UnsupportedModelError, match=words):
        compile_file(content)


def test_too_few_zeros_are_refused():
    net, output = residual(channels=16, sparsity=0.0)
    content = net.written(output)
    with pytest.raises(UnsupportedModelError, match="as predicted"):
        compile_file(content)


def test_open_sizes_are_refused():
    net, output = residual(16)
    program = read_program(net.written(output))
    program.inputs[0].stored.shapeSignature = np.array([-1, 32, 32, 3], np.int32)
    content = write_program(program)
    with pytest.raises(UnsupportedModelError, match=r"open sizes, \[-1, 32, 32, 3\]"):
        compile_file(content)


def naive(net, *outputs):
    """Encode all 1x1 filters, as the converter's option does, whatever is around them."""
    program = net.program(*outputs)
    for op in program.ops:
        op.sparse = op.code == "CONV_2D" and op.inputs[1].shape[1:3] == (1, 1)
    return write_program(program)


def mixed():
    """An ordinary convolution between clusters."""
    net = Network((32, 32, 3))
    x = net.conv(net.inputs[0], 16, 3, 2, EVEN, activation=1)
    x = net.conv(net.conv(x, 32, 1, activation=1), 32, 3, activation=1)
    return net, net.mean(net.conv(x, 32, 1))


def pooled():
    """Max pooling between clusters."""
    net = Network((32, 32, 3))
    x = net.conv(net.inputs[0], 16, 3, 2, EVEN, activation=1)
    x = net.max_pool(net.conv(x, 32, 1, activation=1), 2, 2)
    return net, net.mean(net.conv(x, 32, 1))


def head():
    """A head that is a 1x1 convolution behind the pooling."""
    net = Network((32, 32, 3))
    x = net.conv(net.inputs[0], 16, 3, 2, EVEN, activation=1)
    x = net.mean(net.conv(x, 64, 1, activation=1), keep_axes=True)
    return net, net.conv(x, 64, 1)


def shared_pad():
    """Stride-2 depthwise convolutions that read one PAD, as the converter writes them."""
    net = Network((32, 32, 3))
    x = net.conv(net.inputs[0], 16, 3, 2, EVEN, activation=1)
    x = net.conv(x, 32, 1, activation=1)
    a, b = net.depthwise(x, 3, 2, EVEN), net.depthwise(x, 3, 2, EVEN)
    y = net.mean(net.conv(net.add(a, b), 32, 1))
    return net, y


TRAPS = [mixed, pooled, head]


@needs_qemu
def test_traps_are_wrong_if_encoded_naively_and_right_if_compiled(tmp_path):
    rng = np.random.default_rng(0)
    inputs = [[rng.normal(size=(1, 32, 32, 3)).astype(np.float32)]] * 2
    for build in TRAPS:
        net, output = build()
        dense, encoded = net.written(output), naive(net, output)
        assert check_graph(parse_graph(encoded), "").traps
        compiled = compile_file(dense, eager=True).content
        expected = outputs(dense, inputs[0])
        assert apart(outputs(encoded, inputs[0]), expected) < 1e-5  # On this machine it looks well.
        wrong, right = run_without_avx([encoded, compiled], inputs, tmp_path)
        assert isinstance(wrong, str) or not apart(wrong, expected) < 1e-2
        assert apart(right, expected) < 1e-5


@pytest.mark.parametrize("build", [*TRAPS, shared_pad])
@pytest.mark.parametrize("eager", [False, True])
def test_no_option_writes_a_trap(build, eager):
    net, output = build()
    for price in (0.0, 1.0, 100.0):
        costs = replace(WASM, entry=price, dense_mac=price, tap3=1 - price / 100)
        try:
            compiled = compile_file(net.written(output), costs=costs, eager=eager)
        except UnsupportedModelError:
            continue
        assert not compiled.report.traps
        assert all(cluster.fits for cluster in compiled.report.clusters if cluster.pointwise)


def dense_start():
    """A network that starts as a cluster does, with a beginning that is dearer inside."""
    net = Network((32, 32, 3))
    x = net.conv(net.inputs[0], 16, 3, 2, EVEN, activation=1)
    x = net.depthwise(net.conv(x, 24, 1, activation=1), 3, 1, activation=1)
    x = net.conv(net.conv(x, 24, 1), 24, 3, 2, EVEN, activation=1)
    x = net.conv(net.conv(x, 96, 3, activation=1), 96, 3)
    return net, net.mean(net.conv(x, 64, 1))


@needs_qemu
def test_a_start_that_stays_outside_cannot_be_taken_for_a_cluster(tmp_path):
    net, output = dense_start()
    dense = net.written(output)
    program = read_program(dense)
    inside = set(program.ops[4:])
    context = Context(WASM, set())
    compiled = write_program(transformed(program, inside, set(), context))
    # With the start as it was it would be one, and XNNPACK would switch it, and leak.
    naive = read_program(compiled)
    stem = next(op for op in naive.ops if op.code == "CONV_2D")
    assert stem.pads == ((1, 0), (1, 0))
    stem.pads = EVEN
    for op in naive.ops:
        op.sparse = op.code == "CONV_2D" and op.inputs[1].shape[1:3] == (1, 1)
    assert not check_graph(parse_graph(compiled), "").traps
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(1, 32, 32, 3)).astype(np.float32)]
    expected = outputs(dense, inputs)
    contents = [write_program(naive), compiled]
    assert check_graph(parse_graph(contents[0]), "").traps
    wrong, right = run_without_avx(contents, [inputs] * 2, tmp_path)
    assert isinstance(wrong, str) or not apart(wrong, expected) < 1e-2
    assert apart(right, expected) < 1e-5


def test_same_padding_with_a_stride_is_uneven_to_xnnpack_even_if_it_is_even():
    net = Network((33, 33, 3))
    x = net.conv(net.inputs[0], 16, 3, 2)
    (stem,) = net.emitter.ops
    assert stem.pads == EVEN
    output = net.mean(net.conv(x, 32, 1))
    explicit = check_graph(parse_graph(naive(net, output)), "")
    stem.pads, stem.options.padding = None, 0
    same = check_graph(parse_graph(naive(net, output)), "")
    assert explicit.runs_sparse
    assert not same.runs_sparse


@needs_qemu
def test_a_cluster_in_two_pieces_is_a_trap(tmp_path):
    """A way past the cluster leads through an operator that XNNPACK does not run."""
    net = Network((16, 16, 3))
    x = net.conv(net.inputs[0], 16, 3, 2, EVEN, activation=1)
    x = net.conv(x, 32, 1, activation=1)
    y = net.conv(net.relu(net.depthwise(x, 3, 2, EVEN)), 32, 1)
    z = net.conv(net.max_pool(x, 1, 2), 32, 1)
    output = net.mean(net.conv(net.add(y, z), 32, 1))
    program = net.program(output)
    inside = {op for op in program.ops if op.code != "MAX_POOL_2D"}
    stems = {program.ops[0]}
    content = write_program(transformed(program, inside, stems, Context(WASM, set())))
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(1, 16, 16, 3)).astype(np.float32)]
    expected = outputs(net.written(output), inputs)
    (found,) = run_without_avx([content], [inputs], tmp_path)
    assert isinstance(found, str) or not apart(found, expected) < 1e-2
    assert excess_pieces(content) == 0  # The rules know of the operator.
    (trap, *_) = check_graph(parse_graph(content), "").traps
    assert "MAX_POOL_2D, which XNNPACK does not run, splits it" in trap


def test_a_file_that_is_a_trap_already_is_mended():
    net, output = mixed()
    encoded = naive(net, output)
    compiled = compile_file(encoded, eager=True)
    assert not compiled.report.traps
    assert apart(run(compiled.content), run(encoded)) < 1e-5

"""Each rewrite by itself: it computes what the operator does that it stands for."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import assume, given, settings

from tests.export.sparse_runtime.compiler.networks import Network, apart, run
from tfprune.export.sparse_runtime.check import check_graph
from tfprune.export.sparse_runtime.compiler.borders import enter, leave
from tfprune.export.sparse_runtime.compiler.canonical import canonicalize
from tfprune.export.sparse_runtime.compiler.convolution import Convolution, forms
from tfprune.export.sparse_runtime.compiler.costs import WASM
from tfprune.export.sparse_runtime.compiler.emitter import Emitter
from tfprune.export.sparse_runtime.compiler.lowering import Context, NotLoweredError, lower
from tfprune.export.sparse_runtime.compiler.plan import estimate
from tfprune.export.sparse_runtime.compiler.program import Op, Program, Tensor, same_padding
from tfprune.export.sparse_runtime.compiler.ranges import nonnegative
from tfprune.export.sparse_runtime.compiler.transform import transformed
from tfprune.export.sparse_runtime.compiler.turn import turned
from tfprune.export.sparse_runtime.compiler.writing import write_program
from tfprune.export.sparse_runtime.delegation import is_delegated
from tfprune.export.sparse_runtime.graph import parse_graph

TOLERANCE = 1e-5


def lowered(net, *outputs):
    """Return the file of a network with all that can be in sparse mode."""
    program = net.program(*outputs)
    canonicalize(program)
    context = Context(WASM, nonnegative(program))
    estimated = estimate(program, context)
    inside = {op for op in program.ops if math.isfinite(estimated.sparse[op])}
    return write_program(transformed(program, inside, estimated.stems, context)), inside


def check_lowering(net, *outputs, everything=True):
    """Assert that a network is right in sparse mode, and all of it is there."""
    expected = run(net.written(*outputs))
    content, inside = lowered(net, *outputs)
    assert not everything or len(inside) >= len(net.emitter.ops)
    assert apart(run(content), expected) < TOLERANCE
    report = check_graph(parse_graph(content), "")
    assert not report.traps
    assert all(cluster.fits for cluster in report.clusters if cluster.pointwise)
    return content


KERNELS = [(1, 1), (3, 3), (5, 5), (2, 2), (1, 7), (7, 1), (3, 1), (1, 3), (4, 3)]


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("parts", [(7,), (4, 5)], ids=["whole", "parts"])
def test_every_form_of_a_convolution(kernel, stride, parts):
    sizes = (9, 10)
    net = Network(*[(*sizes, channels) for channels in parts], sparsity=0.6)
    x = net.inputs[0] if len(parts) == 1 else net.concat(*net.inputs)
    pads = tuple(same_padding(*axis, stride) for axis in zip(sizes, kernel, strict=True))
    y = net.conv(x, 6, kernel, stride, pads, activation=1)
    expected = run(net.written(y))
    op = net.emitter.ops[-1]
    convolution = Convolution(op.inputs[1].values, op.inputs[2].values, 1, stride, pads)
    tried = 0
    for form in forms(convolution):
        emitter = Emitter()
        output = form(emitter, net.inputs)
        output.name = "output_0"
        content = write_program(Program(emitter.ops, net.inputs, [output]))
        assert apart(run(content), expected) < TOLERANCE
        tried += 1
    assert tried


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.sampled_from([1, 2]),
    before=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    seed=st.integers(0, 99),
)
def test_convolutions_that_are_padded_in_any_way(sizes, kernel, stride, before, seed):
    """As long as there is an output for every value, or every second one."""
    pads = []
    for size, window, ahead in zip(sizes, kernel, before, strict=True):
        assume(ahead < window)
        after = (-(-size // stride) - 1) * stride + window - size - ahead
        assume(after >= 0)
        pads.append((ahead, after))
    net = Network((*sizes, 3), seed=seed, sparsity=0.5)
    check_lowering(net, net.conv(net.inputs[0], 4, kernel, stride, tuple(pads)))


@pytest.mark.parametrize("kernel", [2, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolutions(kernel, stride, multiplier):
    net = Network((10, 9, 4))
    y = net.depthwise(net.inputs[0], kernel, stride, multiplier=multiplier, activation=3)
    check_lowering(net, y)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (3, 1), (2, 1)])
@pytest.mark.parametrize("size", [8, 9])
def test_max_pooling_after_relu(kernel, stride, size):
    net = Network((size, size, 6))
    y = net.max_pool(net.relu(net.inputs[0]), kernel, stride, "same")
    check_lowering(net, y)


def test_max_pooling_of_negative_values_without_padding():
    net = Network((8, 8, 6))
    check_lowering(net, net.max_pool(net.inputs[0], 2, 2))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 1), (2, 2), (5, 2)])
@pytest.mark.parametrize("size", [8, 9])
def test_padded_max_pooling_of_negative_values(kernel, stride, size):
    """No zero from outside of the map wins."""
    net = Network((size, size, 6))
    x = net.conv(net.inputs[0], 6, 1)
    net.emitter.ops[-1].inputs[2].values -= 9
    check_lowering(net, net.max_pool(x, kernel, stride, "same"))


@pytest.mark.parametrize("code", ["MAX_POOL_2D", "AVERAGE_POOL_2D"])
def test_pooling_of_single_values(code):
    net = Network((8, 9, 6))
    content = check_lowering(net, net.pool(code, net.inputs[0], 1, 2))
    assert code not in {op.name for op in parse_graph(content).operators}


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (2, 1), (3, 2), (3, 1)])
@pytest.mark.parametrize("size", [8, 9])
def test_average_pooling(kernel, stride, size):
    net = Network((size, size, 6))
    check_lowering(net, net.average_pool(net.inputs[0], kernel, stride, "same"))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        (2, 2, "valid"),
        (2, 2, "same"),
        (3, 2, "same"),
        (4, 2, "same"),
        (5, 2, "same"),
        (3, 3, "same"),
    ],
)
def test_transposed_convolutions(kernel, stride, padding):
    net = Network((5, 6, 8))
    x = net.conv(net.inputs[0], 8, 1)
    check_lowering(net, net.transposed(x, 6, kernel, stride, padding))


def test_tiles_that_copy_values():
    net = Network((5, 6, 8))
    x = net.tiled(net.conv(net.inputs[0], 8, 3))
    content = check_lowering(net, net.conv(x, 4, 3), everything=False)
    assert "TILE" not in {op.name for op in parse_graph(content).operators}


@pytest.mark.parametrize("factor", [2, 3])
def test_upsampling_that_copies_values(factor):
    net = Network((5, 6, 8))
    x = net.copied(net.conv(net.inputs[0], 8, 3), factor)
    check_lowering(net, net.conv(x, 4, 3))


def test_a_mean_over_the_whole_map_is_one_whatever_it_is_called():
    net = Network((6, 5, 8))
    x = net.conv(net.inputs[0], 8, 1)
    net.average_pool(x, 1, 1)
    pool = net.emitter.ops[-1]
    pool.options.filterHeight, pool.options.filterWidth = 6, 5
    pool.outputs = [y := Tensor("mean", (1, 1, 1, 8))]
    content = check_lowering(net, net.relu(y), everything=False)
    names = [op.name for op in parse_graph(content).operators]
    assert "MEAN" in names
    assert "AVERAGE_POOL_2D" not in names


@pytest.mark.parametrize("channels", [3, 12, 13, 40])
def test_maps_enter_and_leave_unchanged(channels):
    x = Tensor("input_0", (1, 5, 6, channels))
    emitter, output = Emitter(), Tensor("output_0", x.shape)
    leave(emitter, enter(emitter, x), output)
    content = write_program(Program(emitter.ops, [x], [output]))
    (found,) = run(content)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(found, rng.normal(size=x.shape).astype(np.float32))
    report = check_graph(parse_graph(content), "")
    assert all(cluster.fits for cluster in report.clusters if cluster.pointwise)


def test_concatenations_are_parts_until_somebody_needs_them_whole():
    net = Network((6, 6, 8))
    (x,) = net.inputs
    wide = net.affine(net.concat(net.conv(x, 4, 3), net.conv(x, 5, 1), x))
    y = net.add(net.conv(wide, 17, 3), wide)
    check_lowering(net, net.concat(y, net.relu(x)))


def test_what_xnnpack_would_not_run_is_said_otherwise():
    """Else it splits what is around it."""
    net = Network((8, 8, 4))
    x = net.conv(net.inputs[0], 4, 1)
    many = net.concat(*(net.relu(x) for _ in range(11)))
    outside = net.conv(many, 8, 3, dilation=2)
    content = check_lowering(net, net.conv(outside, 8, 3), net.copied(x), everything=False)
    graph = parse_graph(content)
    assert all(is_delegated(graph, op) for op in graph.operators)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    assert [op["op_name"] for op in interpreter._get_ops_details()].count("DELEGATE") == 1


def test_squeeze_and_excite_stays_inside():
    net = Network((8, 8, 16))
    x = net.conv(net.inputs[0], 16, 3, activation=1)
    gate = net.conv(net.conv(net.mean(x, keep_axes=True), 4, 1, activation=1), 16, 1)
    x = net.multiply(x, net.unary("LOGISTIC", gate))
    check_lowering(net, net.mean(net.conv(x, 24, 1)))


def test_a_mean_that_is_read_inside_and_outside():
    net = Network((8, 8, 16))
    x = net.conv(net.inputs[0], 16, 3, activation=1)
    pooled = net.mean(x, keep_axes=True)
    y = net.mean(net.multiply(x, net.conv(pooled, 16, 1)))
    check_lowering(net, y, pooled)


@pytest.mark.parametrize(("begin", "end", "masks"), [(1, 6, 0), (-4, -1, 0), (2, 5, 2), (3, 6, 4)])
def test_cropping_is_a_slice(begin, end, masks):
    net = Network((6, 6, 8))
    starts = [0 if masks >> axis & 1 else begin % 6 for axis in (1, 2)]
    stop = end % 6 or 6
    limits = ([0, begin, begin, 0], [1, end, end, 8], [1, 1, 1, 1])
    inputs = [net.inputs[0], *(net.emitter.constant(np.array(n, np.int32)) for n in limits)]
    shape = (1, stop - starts[0], stop - starts[1], 8)
    options = schema.StridedSliceOptionsT(masks, 0)
    x = net.emitter.emit("STRIDED_SLICE", inputs, shape, options)
    content = check_lowering(net, net.conv(x, 8, 3), everything=False)
    names = {op.name for op in parse_graph(content).operators}
    assert "SLICE" in names
    assert "STRIDED_SLICE" not in names


def test_constants_in_every_place():
    net = Network((6, 6, 8))
    x = net.conv(net.inputs[0], 8, 1)
    constant = net.emitter.constant
    for code, options in (("SUB", "SubOptionsT"), ("DIV", "DivOptionsT"), ("MUL", "MulOptionsT")):
        for values in (np.float32(1.7), net.rng.uniform(1, 2, 8).astype(np.float32)):
            built = getattr(schema, options)(0)
            x = net.emitter.emit(code, [x, constant(values)], x.shape, built)
    check_lowering(net, x)


def test_means_that_are_reshaped_keep_their_axes():
    net = Network((6, 6, 8))
    x = net.conv(net.inputs[0], 8, 3)
    gate = net.reshaped(net.mean(x), (1, 1, 1, 8))
    y = net.mean(net.multiply(x, net.conv(gate, 8, 1)))
    expected = run(net.written(y))
    program = net.program(y)
    canonicalize(program)
    assert "RESHAPE" not in {op.code for op in program.ops}
    assert apart(run(write_program(program)), expected) < TOLERANCE


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    kernel=st.sampled_from([1, 2, 3, 5]),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid", ((0, 1), (0, 1)), ((2, 0), (1, 3))]),
    depthwise=st.booleans(),
    flat=st.booleans(),
)
def test_a_turned_network_computes_the_same(sizes, kernel, stride, padding, depthwise, flat):
    net = Network((*sizes, 3), sparsity=0.1)
    layer = net.depthwise if depthwise else lambda x, *args: net.conv(x, 5, *args)
    x = net.relu(layer(net.inputs[0], kernel, stride, padding))
    x = net.max_pool(x, 2, 2)
    y = x if flat else net.mean(net.conv(x, 4, 3))
    expected = run(net.written(y))
    program = turned(net.program(y))
    assert any(op.code == "REVERSE_V2" for op in program.ops)
    assert apart(run(write_program(program)), expected) < TOLERANCE


def test_the_half_turn_evens_out_the_padding_of_mobile_networks():
    net = Network((16, 16, 3))
    x = net.conv(net.inputs[0], 8, 3, 2)
    assert net.emitter.ops[-1].pads == ((0, 1), (0, 1))
    y = net.mean(net.depthwise(x, 3, 2))
    program = turned(net.program(y))
    pads = [op.pads for op in program.ops if op.pads is not None]
    assert pads == [((1, 1), (1, 1))] * 2


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda net, x: net.conv(x, 8, 3, dilation=2), "dilated"),
        (lambda net, x: net.conv(x, 8, 3, padding="valid"), "leave out the border"),
        (lambda net, x: net.conv(x, 8, 3, 3), "strides"),
        (lambda net, x: net.conv(x, 8, 3, activation=4), "no clamp"),
        (lambda net, x: net.average_pool(x, 5, 1, "same"), "by more than a row or column"),
        (lambda net, x: net.average_pool(x, 4, 4), "strides"),
        (lambda net, x: net.unary("SOFTMAX", x), "no channels-first form"),
    ],
    ids=["dilated", "valid", "stride", "activation", "average", "pool stride", "softmax"],
)
def test_what_has_no_form_says_why(build, reason):
    net = Network((8, 8, 4))
    build(net, net.inputs[0])
    (op,) = net.emitter.ops
    with pytest.raises(NotLoweredError, match=reason):
        lower(Emitter(), op, [[net.inputs[0]]], Context(WASM, set()))


def test_grouped_convolutions_have_no_form():
    net = Network((8, 8, 4))
    net.conv(net.inputs[0], 8, 3)
    (op,) = net.emitter.ops
    halved = Tensor.constant("filters", op.inputs[1].values[..., :2])
    grouped = Op(op.code, [op.inputs[0], halved, op.inputs[2]], op.outputs, op.options, op.pads)
    with pytest.raises(NotLoweredError, match="in groups"):
        lower(Emitter(), grouped, [[net.inputs[0]]], Context(WASM, set()))

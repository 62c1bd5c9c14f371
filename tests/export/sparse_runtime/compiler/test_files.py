"""Reading and writing files: what is read and written again computes the same."""

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given

from tests.export.sparse_runtime.compiler.networks import Network, run
from tfprune.errors import ArtifactError, UnsupportedModelError
from tfprune.export.flatbuffer import load_model, pack_model
from tfprune.export.sparse_runtime.compiler.encoding import decode, encode
from tfprune.export.sparse_runtime.compiler.program import Tensor
from tfprune.export.sparse_runtime.compiler.reading import read_program
from tfprune.export.sparse_runtime.compiler.writing import write_program


def network():
    net = Network((13, 14, 3))
    x = net.conv(net.inputs[0], 16, 3, 2, activation=1)
    x = net.conv(x, 16, 3, 1, ((1, 1), (0, 2)))
    x = net.conv(net.depthwise(x, 5, 2), 8, 1)
    return net, net.dense(net.mean(x), 4)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.just(1), st.just(1), st.integers(1, 400)),
        elements=st.sampled_from([0, 0, 0, 1.5, -2]),
        fill=st.just(0),
    )
)
def test_the_sparse_encoding_comes_back_equal(values):
    stored, parameters = encode(values)
    assert stored.size == np.count_nonzero(values)
    np.testing.assert_array_equal(decode(stored, values.shape, parameters), values)


def test_indices_take_as_few_bytes_as_they_need():
    for size, kind in ((200, 3), (300, 2), (70_000, 1)):
        last = encode(np.ones((1, size), np.float32))[1].dimMetadata[-1]
        assert last.arrayIndicesType == last.arraySegmentsType == kind
        assert len(last.arrayIndices.values) == size


def test_a_file_that_is_read_and_written_computes_the_same():
    net, output = network()
    content = net.written(output)
    again = write_program(read_program(content))
    np.testing.assert_array_equal(run(again)[0], run(content)[0])


def test_names_of_the_signature_stay():
    net, output = network()
    again = write_program(read_program(net.written(output)))
    signature = Interpreter(model_content=again).get_signature_runner()
    assert list(signature.get_input_details()) == ["input_0"]
    assert list(signature.get_output_details()) == ["output_0"]


@pytest.mark.parametrize("float16", [False, True])
def test_sparse_and_float16_weights_are_unpacked_and_packed_again(float16):
    net, output = network()
    for op in net.emitter.ops:
        if op.code == "CONV_2D":
            op.sparse = True
            op.inputs[1].values = op.inputs[1].values.astype(np.float16).astype(np.float32)
    program = net.program(output)
    program.float16 = float16
    content = write_program(program)
    codes = {code.builtinCode for code in read_codes(content)}
    assert schema.BuiltinOperator.DENSIFY in codes
    assert (schema.BuiltinOperator.DEQUANTIZE in codes) == float16
    read = read_program(content)
    assert read.float16 == float16
    assert not {op.code for op in read.ops} & {"DENSIFY", "DEQUANTIZE", "PAD"}
    for op, original in zip(read.ops, program.ops, strict=True):
        if op.code == "CONV_2D":
            np.testing.assert_array_equal(op.inputs[1].values, original.inputs[1].values)
    np.testing.assert_array_equal(run(write_program(read))[0], run(content)[0])


def read_codes(content):
    return load_model(content).operatorCodes


def test_float16_is_kept_only_where_nothing_is_lost():
    net, output = network()
    program = net.program(output)
    program.float16 = True
    assert not any(t.dtype == "FLOAT16" for t in stored_tensors(write_program(program)))


def stored_tensors(content):
    read = load_model(content)
    names = {value: name for name, value in vars(schema.TensorType).items()}
    return [
        Tensor(tensor.name.decode(), tuple(tensor.shape), names[tensor.type])
        for tensor in read.subgraphs[0].tensors
    ]


def test_each_convolution_gets_a_padding_of_its_own():
    net = Network((12, 12, 4))
    (x,) = net.inputs
    even = ((1, 1), (1, 1))
    a, b = net.depthwise(x, 3, 2, even), net.depthwise(x, 3, 2, even)
    content = net.written(net.add(a, b))
    model = load_model(content)
    codes = [model.operatorCodes[op.opcodeIndex].builtinCode for op in model.subgraphs[0].operators]
    assert codes.count(schema.BuiltinOperator.PAD) == 2


def test_equal_constants_are_stored_once():
    sizes = []
    for count in (1, 9):
        net = Network((12, 12, 64))
        x = net.inputs[0]
        for _ in range(count):
            x = net.emitter.tap(x, 0, 1)
            net.emitter.taps.clear()
        sizes.append(len(net.written(x)))
    assert sizes[1] - sizes[0] < 8 * 3 * 3 * 64 * 4 / 2


def test_files_that_are_no_models_are_refused():
    with pytest.raises(ArtifactError, match="not a TFLite model"):
        read_program(b"PK\3\4 something else")
    with pytest.raises(ArtifactError, match="damaged"):
        read_program(b"\x1c\x00\x00\x00TFL3" + np.random.default_rng(0).bytes(500))


def test_several_subgraphs_are_refused():
    net, output = network()
    model = load_model(net.written(output))
    model.subgraphs *= 2
    with pytest.raises(UnsupportedModelError, match="2 subgraphs"):
        read_program(pack_model(model))

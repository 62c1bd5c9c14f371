import numpy as np
import pytest

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.kernel_layout import KernelLayout
from tfprune.patterns import (
    NM,
    Block,
    Channel,
    Column,
    Filter,
    Head,
    Kernel,
    Pattern,
    Row,
    Unstructured,
    Vector,
    Xnnpack,
)

LAYOUTS = {
    "Dense": KernelLayout.default((6, 8)),
    "Conv2D": KernelLayout.default((3, 3, 5, 7)),
    "Conv2DTranspose": KernelLayout((3, 3, 5, 7), input_axes=(3,), output_axes=(2,)),
    "attention query": KernelLayout((5, 4, 2), input_axes=(0,), output_axes=(1, 2), heads=(1, 2)),
    "attention output": KernelLayout((2, 4, 6), input_axes=(0, 1), output_axes=(2,), heads=(0, 2)),
    "bias": KernelLayout.default((9,)),
}
PATTERNS = [
    Unstructured(),
    Block((1, 4)),
    Block((3, 2)),
    NM(2, 4),
    Vector(3),
    Vector(4, axis="output"),
    Kernel(),
    Row(),
    Column(),
    Filter(),
    Channel(),
    Head(),
    Xnnpack(),
]


def test_the_taps_view_round_trips():
    for name, layout in LAYOUTS.items():
        array = np.arange(layout.size).reshape(layout.shape)
        taps = layout.to_taps(array)
        assert taps.shape == layout.taps_shape, name
        assert (layout.from_taps(taps) == array).all(), name


def test_a_transposed_kernel_has_its_inputs_last():
    layout = LAYOUTS["Conv2DTranspose"]
    assert layout.taps_shape == (9, 7, 5)
    kernel = np.random.default_rng(0).random(layout.shape)
    assert layout.to_taps(kernel)[4, 2, 3] == kernel[1, 1, 3, 2]


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_units_tile_every_weight_and_score_their_mean(pattern):
    for name, layout in LAYOUTS.items():
        scores = np.random.default_rng(0).random(layout.shape)
        units = pattern.unit_scores(scores, layout)
        sizes = np.broadcast_to(pattern.unit_sizes(layout), units.shape)
        masks = [pattern.expand(one == 1, layout) for one in np.eye(units.size)]
        assert all(mask.shape == layout.shape and mask.dtype == bool for mask in masks), name
        assert (np.sum(masks, axis=0) == 1).all(), name
        assert [mask.sum() for mask in masks] == sizes.tolist(), name
        assert units == pytest.approx([scores[mask].mean() for mask in masks]), name


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        (Kernel(), np.s_[:, :, 1, 2]),
        (Row(), np.s_[1, 0, 1, :]),
        (Filter(), np.s_[:, :, :, 2]),
        (Column(), np.s_[:, :, :, 2]),
        (Channel(), np.s_[:, :, 1, :]),
        (Vector(2), np.s_[1, 0, 0:2, 2]),
        (Vector(2, axis="output"), np.s_[1, 0, 1, 2:4]),
    ],
    ids=repr,
)
def test_the_best_unit_of_a_convolution_is_where_one_expects_it(pattern, kept):
    kernel = np.zeros((2, 1, 2, 4))
    kernel[kept] = 1
    layout = KernelLayout.default(kernel.shape)
    units = pattern.unit_scores(kernel, layout)
    assert sorted(units)[-2:] == [0, 1]
    assert (pattern.expand(units == 1, layout) == kernel).all()


def test_a_filter_of_a_transposed_convolution_is_read_from_its_layout():
    mask = Filter().expand(np.array([0, 1, 0, 0, 0], bool), LAYOUTS["Conv2DTranspose"])
    assert mask[:, :, 1, :].all()
    assert mask.sum() == 9 * 7


def test_a_block_of_a_convolution_lies_in_the_im2col_matrix():
    layout = LAYOUTS["Conv2D"]
    one = np.zeros(9, bool)
    one[4] = True
    mask = Block((5, 7)).expand(one, layout)
    assert mask[1, 1].all()
    assert mask.sum() == 35


def test_query_heads_that_share_a_key_head_are_one_unit():
    mask = Head().expand(np.array([False, True]), LAYOUTS["attention query"])
    assert mask[0].astype(int).tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]
    single = KernelLayout((2, 4, 6), input_axes=(0, 1), output_axes=(2,), heads=(0, 2))
    assert Head().expand(np.array([False, True]), single)[:, 0, 0].tolist() == [False, True]


@pytest.mark.parametrize(
    ("pattern", "layout"),
    [
        (Filter(), KernelLayout.default((5, 1))),
        (Channel(), KernelLayout.default((1, 5))),
        (Channel(), LAYOUTS["bias"]),
        (Row(), LAYOUTS["bias"]),
        (Block((6, 8)), LAYOUTS["Dense"]),
        (Head(), LAYOUTS["Dense"]),
        (Head(), KernelLayout((5, 1, 2), (0,), (1, 2), heads=(1, 1))),
        (NM(2, 8), LAYOUTS["Dense"]),
    ],
)
def test_a_weight_of_one_unit_cannot_be_pruned(pattern, layout):
    assert pattern.prunable_size(layout) == 0


def test_a_vector_has_outputs_alone():
    bias = LAYOUTS["bias"]
    assert Filter().prunable_size(bias) == 9
    assert Filter().unit_scores(np.arange(9.0), bias).tolist() == list(range(9))
    assert Vector(4, axis="output").unit_sizes(bias).tolist() == [4, 4, 1]


def test_patterns_of_whole_outputs_say_so():
    assert {type(pattern) for pattern in PATTERNS if pattern.whole_outputs} == {Filter, Column}


def test_a_string_is_a_pattern():
    assert Pattern.get("2:4") == NM(2, 4)
    names = ["kernel", "row", "column", "filter", "channel", "head", "xnnpack"]
    assert [Pattern.get(name) for name in names] == PATTERNS[6:]


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Pattern.get("two:4"), InvalidArgumentError, "written like '2:4'"),
        (lambda: Pattern.get("slices"), InvalidArgumentError, "Unknown pattern 'slices'"),
        (lambda: NM(4, 4), InvalidArgumentError, "1 <= n < m"),
        (lambda: NM(0, 4), InvalidArgumentError, "1 <= n < m"),
        (lambda: NM(1.5, 4), InvalidTypeError, "must be ints"),
        (lambda: NM(2, 4, axis="rows"), InvalidArgumentError, "'input' or 'output'"),
        (lambda: Block((0, 4)), InvalidArgumentError, "at least"),
        (lambda: Block(4), InvalidTypeError, "(rows, columns)"),
        (lambda: NM(2, 4).check_target(0.8), InvalidArgumentError, "2:4 has sparsity 0.5"),
        (lambda: Vector(0), InvalidArgumentError, "at least 1"),
        (lambda: Vector(2.5), InvalidTypeError, "must be an int"),
        (lambda: Vector(4, axis="taps"), InvalidArgumentError, "'input' or 'output'"),
    ],
)
def test_bad_arguments_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()

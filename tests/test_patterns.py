import numpy as np
import pytest

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.kernel_layout import KernelLayout
from tfprune.patterns import NM, Block, Pattern, Unstructured

LAYOUTS = {
    "Dense": KernelLayout.default((6, 8)),
    "Conv2D": KernelLayout.default((3, 3, 5, 7)),
    "Conv2DTranspose": KernelLayout((3, 3, 5, 7), input_axes=(3,), output_axes=(2,)),
    "attention output": KernelLayout((2, 4, 6), input_axes=(0, 1), output_axes=(2,)),
    "bias": KernelLayout.default((9,)),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_taps_view_round_trips(layout):
    array = np.arange(layout.size).reshape(layout.shape)
    taps = layout.to_taps(array)
    assert taps.shape == layout.taps_shape
    assert (layout.from_taps(taps) == array).all()


def test_a_transposed_kernel_has_its_inputs_last():
    layout = LAYOUTS["Conv2DTranspose"]
    assert layout.taps_shape == (9, 7, 5)
    kernel = np.random.default_rng(0).random(layout.shape)
    assert layout.to_taps(kernel)[4, 2, 3] == kernel[1, 1, 3, 2]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    "pattern", [Unstructured(), Block((1, 4)), Block((3, 2)), NM(2, 4)], ids=repr
)
def test_expanding_the_unit_scores_of_a_constant_gives_it_back(pattern, layout):
    units = pattern.unit_scores(np.ones(layout.shape), layout)
    assert (units == 1).all()
    sizes = np.broadcast_to(pattern.unit_sizes(layout), units.shape)
    assert sizes.sum() == layout.size
    one = np.zeros(units.shape, bool)
    one[-1] = True
    assert pattern.expand(one, layout).shape == layout.shape
    assert pattern.expand(one, layout).sum() == sizes[-1]


def test_a_block_of_a_convolution_lies_in_the_im2col_matrix():
    layout = LAYOUTS["Conv2D"]
    pattern = Block((5, 7))
    one = np.zeros(9, bool)
    one[4] = True
    mask = pattern.expand(one, layout)
    assert mask[1, 1].all()
    assert mask.sum() == 35


def test_an_n_m_string_is_a_pattern():
    assert Pattern.get("2:4") == NM(2, 4)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Pattern.get("two:4"), InvalidArgumentError, "written like '2:4'"),
        (lambda: NM(4, 4), InvalidArgumentError, "1 <= n < m"),
        (lambda: NM(0, 4), InvalidArgumentError, "1 <= n < m"),
        (lambda: NM(1.5, 4), InvalidTypeError, "must be ints"),
        (lambda: NM(2, 4, axis="rows"), InvalidArgumentError, "'input' or 'output'"),
        (lambda: Block((0, 4)), InvalidArgumentError, "at least"),
        (lambda: Block(4), InvalidTypeError, "(rows, columns)"),
        (lambda: NM(2, 4).check_target(0.8), InvalidArgumentError, "2:4 has sparsity 0.5"),
    ],
)
def test_bad_arguments_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()

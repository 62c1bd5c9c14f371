import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.allocation import (
    Allocation,
    Erk,
    Global,
    Lamp,
    PerLayer,
    PerWeight,
    Staged,
    Uniform,
    UniformPlus,
    WeightInfo,
    lamp_scores,
)
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.kernel_layout import KernelLayout
from tfprune.masks import kept_count

SHAPES = {
    "stem": (3, 3, 3, 16),
    "block1/conv": (3, 3, 16, 32),
    "block1/shortcut": (1, 1, 16, 32),
    "block2/conv": (3, 3, 32, 64),
    "head": (64, 10),
}


def named(shapes):
    return [
        WeightInfo(f"net/{name}/kernel", KernelLayout.default(shape), ("net", *name.split("/")))
        for name, shape in shapes.items()
    ]


NET = named(SHAPES)
SIZES = [weight.layout.size for weight in NET]
NETS = st.lists(
    st.one_of(
        st.tuples(*[st.integers(1, 40)] * 2),
        st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 24)] * 2),
    ),
    min_size=1,
    max_size=7,
).map(lambda shapes: named({f"w{i}": shape for i, shape in enumerate(shapes)}))
SPARSITIES = st.floats(0, 0.99)


def kept(allocation, sparsity, weights):
    sparsities = allocation.sparsities(sparsity, weights, sparsity)
    return [kept_count(w.layout.size, s) for w, s in zip(weights, sparsities, strict=True)]


def test_uniform_gives_every_weight_the_same():
    assert Uniform().sparsities(0.4, NET, 0.8) == [0.4] * 5


def test_a_dict_sets_layers_apart_by_name_path_or_regular_expression():
    layers = {
        "stem": 0.05,
        re.compile("shortcut"): 0.3,
        "net/head/kernel": 0.0,
        "block1": 0.6,
    }
    allocation = Allocation.get(layers)
    assert allocation.sparsities(0.8, NET, 0.8) == [0.05, 0.6, 0.3, 0.8, 0.0]
    assert allocation.sparsities(0.4, NET, 0.8) == [0.025, 0.3, 0.15, 0.4, 0.0]
    with_default = PerLayer(layers, default=0.2)
    assert with_default.sparsities(0.8, NET, 0.8) == [0.05, 0.6, 0.3, 0.2, 0.0]
    assert with_default.sparsities(0.0, NET, 0.8) == [0.0] * 5


def test_the_first_key_that_fits_decides():
    layers = {re.compile("conv"): 0.3, "block1": 0.6}
    assert PerLayer(layers).sparsities(0.8, NET, 0.8) == [0.8, 0.3, 0.6, 0.3, 0.8]


def test_a_path_fits_with_and_without_the_models_name():
    # A Sequential's name leads its weights' paths until it is loaded from a file.
    loaded = WeightInfo("dense/kernel", KernelLayout.default((4, 4)), ("net", "dense"))
    assert PerLayer({"net/dense/kernel": 0.1}).sparsities(0.8, [loaded], 0.8) == [0.1]
    built = WeightInfo("net/dense/kernel", KernelLayout.default((4, 4)), ("net", "dense"))
    assert PerLayer({"dense/kernel": 0.1}).sparsities(0.8, [built], 0.8) == [0.1]


def test_sparsities_by_layer_may_exceed_the_schedules():
    assert PerLayer({"stem": 0.9}).sparsities(0.25, NET, 0.5)[0] == 0.45
    assert PerLayer({"stem": 0.9}).sparsities(0.0, NET, 0.0) == [0.9, 0, 0, 0, 0]


def test_a_callable_decides_on_every_weight_and_is_saved_as_what_it_said():
    allocation = Allocation.get(lambda weight: 0.9 if len(weight.layers) > 2 else 0.1)
    assert isinstance(allocation, PerWeight)
    assert allocation.sparsities(0.25, NET, 0.5) == [0.05, 0.45, 0.45, 0.45, 0.05]
    resolved = allocation.resolved(NET)
    assert Allocation.get(json.loads(json.dumps(resolved.serialize()))) == resolved
    assert resolved.sparsities(0.25, NET, 0.5) == allocation.sparsities(0.25, NET, 0.5)
    with pytest.raises(InvalidTypeError, match=r"call `resolved\(weights\)` first"):
        allocation.serialize()


@pytest.mark.parametrize(
    "allocation",
    [
        PerLayer({"stem": 0.05, re.compile("BLOCK", re.IGNORECASE): 0.5}, default=0.7),
        Staged(["stem", re.compile("block."), "head"]),
        Staged(3),
        Global(0.1, 0.9),
        Erk(kernel=False),
        UniformPlus(),
        Lamp(),
    ],
    ids=repr,
)
def test_every_allocation_survives_json(allocation):
    saved = json.loads(json.dumps(allocation.serialize()))
    assert Allocation.get(saved) == allocation
    assert allocation.resolved(NET) is allocation


def reference_erk(shapes, density):
    """The published procedure: layers above density 1 become dense, until there are none."""
    sizes = {name: np.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / np.prod(shape) for name, shape in shapes.items()}
    dense = set()
    while True:
        others = [name for name in shapes if name not in dense]
        budget = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        factor = budget / sum(raw[name] * sizes[name] for name in others)
        largest = max(raw[name] for name in others)
        if factor * largest <= 1:
            return [1.0 if name in dense else factor * raw[name] for name in shapes]
        dense |= {name for name in others if raw[name] == largest}


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9, 0.98])
def test_erk_agrees_with_the_published_procedure(sparsity):
    expected = reference_erk(SHAPES, 1 - sparsity)
    densities = 1 - np.array(Erk().sparsities(sparsity, NET, sparsity))
    assert np.abs(densities - expected) * SIZES == pytest.approx(0, abs=1)
    assert densities[0] > densities[3]
    if sparsity == 0.5:
        assert densities[0] == expected[0] == 1, "the stem stays dense"


def test_erk_counts_kernel_positions_and_er_does_not():
    pair = named({"conv": (3, 3, 16, 16), "dense": (16, 16)})
    # Densities 38 / 2304 and 32 / 256, times a factor; without the positions both 32 / 256.
    kernel, plain = Erk().sparsities(0.9, pair, 0.9), Erk(kernel=False).sparsities(0.9, pair, 0.9)
    assert (1 - kernel[0]) / (1 - kernel[1]) == pytest.approx(38 / 2304 / (32 / 256), rel=0.02)
    assert plain == pytest.approx([0.9, 0.9], abs=0.005)


def test_erk_reads_inputs_and_outputs_from_the_layout():
    joined = KernelLayout((8, 4, 4), input_axes=(0,), output_axes=(1, 2))
    flat = KernelLayout.default((8, 16))
    transposed = KernelLayout((3, 3, 32, 4), input_axes=(3,), output_axes=(2,))
    plain = KernelLayout.default((3, 3, 4, 32))
    weights = [WeightInfo(str(i), layout) for i, layout in enumerate([joined, flat])]
    assert len(set(Erk().sparsities(0.5, weights, 0.5))) == 1
    weights = [WeightInfo(str(i), layout) for i, layout in enumerate([transposed, plain])]
    assert len(set(Erk().sparsities(0.5, weights, 0.5))) == 1


@given(weights=NETS, sparsities=st.tuples(SPARSITIES, SPARSITIES), kernel=st.booleans())
def test_erk_is_exact_in_total_and_never_gives_a_layer_weights_back(weights, sparsities, kernel):
    low, high = sorted(sparsities)
    total = sum(w.layout.size for w in weights)
    before, after = kept(Erk(kernel), low, weights), kept(Erk(kernel), high, weights)
    assert sum(before) == max(kept_count(total, low), len(weights))
    assert sum(after) == max(kept_count(total, high), len(weights))
    assert all(a <= b for a, b in zip(after, before, strict=True))


def test_uniform_plus_keeps_the_first_convolution_and_a_fifth_of_the_last_layer():
    sparsities = UniformPlus().sparsities(0.9, NET, 0.9)
    assert sparsities[0] == 0
    assert sparsities[4] == 0.8
    others = sparsities[1:4]
    assert max(others) - min(others) <= 1 / min(SIZES[1:4])
    assert sum(kept(UniformPlus(), 0.9, NET)) == kept_count(sum(SIZES), 0.9)
    gentle = UniformPlus().sparsities(0.5, NET, 0.5)
    assert gentle[4] == pytest.approx(gentle[3], abs=1 / SIZES[4])


def test_uniform_plus_without_a_convolution_holds_nothing_dense():
    dense = named({"d1": (40, 40), "d2": (40, 10)})
    first, last = UniformPlus().sparsities(0.9, dense, 0.9)
    assert (first, last) == (0.925, 0.8)


@given(weights=NETS, sparsity=SPARSITIES)
def test_uniform_plus_is_exact_in_total_or_refuses(weights, sparsity):
    sizes = [weight.layout.size for weight in weights]
    least = [1] * (len(sizes) - 1) + [-(-sizes[-1] // 5)]
    convolutions = [i for i, weight in enumerate(weights) if len(weight.layout.shape) == 4]
    for first in convolutions[:1]:
        least[first] = sizes[first]
    total = max(kept_count(sum(sizes), sparsity), len(sizes))
    if sum(least) > total:
        with pytest.raises(InvalidArgumentError, match="dense first convolution"):
            kept(UniformPlus(), sparsity, weights)
    else:
        counts = kept(UniformPlus(), sparsity, weights)
        assert sum(counts) == total
        assert all(count >= low for count, low in zip(counts, least, strict=True))


def test_uniform_plus_says_what_it_can_reach():
    two = named({"stem": (3, 3, 3, 16), "head": (16, 10)})
    with pytest.raises(InvalidArgumentError, match="at most 0.2162"):
        UniformPlus().sparsities(0.5, two, 0.5)


def test_one_threshold_asks_the_same_of_all_on_average():
    assert Global().sparsities(0.5, NET, 0.8) == [0.5] * 5
    assert Lamp().sparsities(0.5, NET, 0.8) == [0.5] * 5
    assert all(a.one_threshold for a in (Global(), Lamp()))
    assert not any(a.one_threshold for a in (Uniform(), Erk(), UniformPlus(), Staged(2)))
    assert Global(0.2, 0.9).bounds == (0.2, 0.9)
    assert Lamp().bounds == Uniform().bounds == (0.0, 1.0)
    with pytest.raises(InvalidArgumentError, match=r"final sparsity of 0.8 .* at most 0.7"):
        Global(max_sparsity=0.7).sparsities(0.1, NET, 0.8)


def test_lamp_scores_are_squares_over_the_squares_not_below():
    assert lamp_scores(np.array([[1.0, 2.0], [4.0, 2.0]])).tolist() == [
        [1 / 25, 4 / 24],
        [1.0, 4 / 24],
    ]


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12))
def test_lamp_scores_agree_with_their_definition_and_keep_the_order(values):
    scores = np.array(values, np.float32)
    lamp = lamp_scores(scores)
    assert lamp.dtype == np.float32
    for score, result in zip(scores, lamp, strict=True):
        above = np.square(scores[np.abs(scores) >= abs(score)]).sum()
        assert result == pytest.approx(np.sign(score) * score**2 / max(above, 1))
    assert (np.argsort(lamp, kind="stable") == np.argsort(scores, kind="stable")).all()


def test_lamp_leaves_pruned_weights_out():
    scores, alive = np.array([3.0, 5.0, 4.0]), np.array([True, False, True])
    assert Lamp().rescale(scores, alive).tolist() == [0.36, 0.0, 1.0]
    assert scores.tolist() == [3.0, 5.0, 4.0]
    assert Uniform().rescale(scores, alive) is scores


def test_stages_are_pruned_one_after_the_other():
    stages = Staged([re.compile("block2"), "block1", re.compile("stem|head")])
    finals = 0.75

    def at(progress):
        return [s / finals for s in stages.sparsities(progress * finals, NET, finals)]

    assert at(0) == [0, 0, 0, 0, 0]
    assert at(1 / 6) == pytest.approx([0, 0, 0, 0.5, 0])
    assert at(1 / 3) == pytest.approx([0, 0, 0, 1, 0])
    assert at(1 / 2) == pytest.approx([0, 0.5, 0.5, 1, 0])
    assert at(5 / 6) == pytest.approx([0.5, 1, 1, 1, 0.5])
    assert at(1) == [1] * 5


@pytest.mark.parametrize(
    ("sizes", "count", "stages"),
    [
        ([4, 4, 4, 4], 2, [0, 0, 1, 1]),
        ([1, 1, 1, 9], 2, [0, 0, 0, 1]),
        ([9, 1, 1, 1], 2, [0, 1, 1, 1]),
        ([9, 1, 1, 1], 4, [0, 1, 2, 3]),
        ([1, 1, 1, 9], 3, [0, 0, 1, 2]),
        ([2, 3, 4, 1, 2], 3, [0, 0, 1, 2, 2]),
    ],
)
def test_stages_by_depth_are_of_about_one_size_and_none_is_empty(sizes, count, stages):
    weights = named({f"w{i}": (1, size) for i, size in enumerate(sizes)})
    for stage in range(count):
        done = Staged(count).sparsities(0.5 * (stage + 1) / count, weights, 0.5)
        assert done == pytest.approx([0.5 if s <= stage else 0.0 for s in stages])


@given(
    weights=NETS,
    sparsity=st.floats(0.01, 0.99),
    ways=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    data=st.data(),
)
def test_stages_only_ever_go_up_and_end_uniform(weights, sparsity, ways, data):
    stages = Staged(data.draw(st.integers(1, len(weights))))
    early, late = (stages.sparsities(way * sparsity, weights, sparsity) for way in sorted(ways))
    assert all(a <= b <= sparsity for a, b in zip(early, late, strict=True))
    assert stages.sparsities(sparsity, weights, sparsity) == [sparsity] * len(weights)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Allocation.get(Erk), InvalidTypeError, "`allocation` must be one of"),
        (lambda: Allocation.get({}), InvalidArgumentError, "names no layer"),
        (lambda: PerLayer({"stem": 80}), InvalidArgumentError, r"layers\['stem'\].*Received: 80"),
        (lambda: PerLayer({"stem": 0.5}, 1.0), InvalidArgumentError, "`default` must be"),
        (lambda: PerLayer({3: 0.5}), InvalidTypeError, "A key is a layer's name"),
        (lambda: PerLayer(0.5), InvalidTypeError, "a dict of sparsities by layer"),
        (lambda: PerLayer("stem"), InvalidTypeError, "a dict of sparsities by layer"),
        (lambda: PerWeight(0.5), InvalidTypeError, "`function` must be callable"),
        (lambda: Global(0.9, 0.1), InvalidArgumentError, "min_sparsity <= max_sparsity"),
        (lambda: Global(max_sparsity=95), InvalidArgumentError, "must be fractions"),
        (lambda: Staged(0), InvalidArgumentError, "at least one stage"),
        (lambda: Staged([]), InvalidArgumentError, "at least one stage"),
        (lambda: Staged("stem"), InvalidTypeError, "a number of stages"),
        (lambda: Staged(True), InvalidTypeError, "a number of stages"),
        (
            lambda: PerLayer({"stem": 0.5, "con": 0.1}).sparsities(0.5, NET, 0.5),
            InvalidArgumentError,
            "goes by 'con'.*net/stem/kernel, net/block1/conv/kernel",
        ),
        (
            lambda: PerLayer({"block1": 0.5, "shortcut": 0.1}).sparsities(0.5, NET, 0.5),
            InvalidArgumentError,
            "goes by 'shortcut'.*the first that fits decides",
        ),
        (
            lambda: PerWeight(lambda weight: 2.0).resolved(NET),
            InvalidArgumentError,
            r"layers\['net/stem/kernel'\]",
        ),
        (
            lambda: Staged(6).sparsities(0.5, NET, 0.5),
            InvalidArgumentError,
            "5 weights cannot be split in 6 stages",
        ),
        (
            lambda: Staged(["stem", "head"]).sparsities(0.5, NET, 0.5),
            InvalidArgumentError,
            "in no stage: net/block1/conv/kernel, net/block1/shortcut/kernel, net/block2",
        ),
    ],
)
def test_bad_arguments_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()

"""Every criterion with every pattern: the sparsity is exact to one unit, or the plan refuses."""

import functools

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from hypothesis import given

import tfprune
from tfprune.criteria import Criterion, WeightView
from tfprune.errors import InvalidArgumentError
from tfprune.evidence import COLLECTORS, Probe, gather
from tfprune.masks import local_mask
from tfprune.patterns import NM, Block, Pattern, Vector
from tfprune.selection import choose_weights

CRITERIA = Criterion._known_names()
PATTERNS = [
    "unstructured",
    Block((2, 2)),
    Block((1, 4)),
    NM(1, 2),
    NM(2, 4),
    NM(3, 4, axis="output"),
    Vector(4),
    "kernel",
    "row",
    "column",
    "filter",
    "channel",
]


@functools.cache
def scored_net():
    keras.utils.set_random_seed(1)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(8, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2DTranspose(4, 2, name="transposed"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(8, name="dense"),
            layers.BatchNormalization(),
            layers.Softmax(),
        ]
    )


@functools.cache
def scored_weights():
    """Return each weight of the net with all the evidence that any criterion asks for."""
    net = scored_net()
    rng = np.random.default_rng(0)
    data = rng.normal(size=(16, 6, 6, 4)).astype("float32"), rng.integers(0, 8, 16)
    weights = choose_weights(net, exclude="transposed")
    probe = Probe(net, weights, data, loss="sparse_categorical_crossentropy")
    return list(zip(weights, gather(COLLECTORS, probe), strict=True))


@given(
    name=st.sampled_from(CRITERIA),
    pattern=st.sampled_from(PATTERNS),
    sparsity=st.floats(0, 1),
    pruned_before=st.floats(0, 0.5),
)
def test_the_achieved_sparsity_is_the_requested_one_to_one_unit(
    name, pattern, sparsity, pruned_before
):
    criterion, pattern = Criterion.get(name), Pattern.get(pattern)
    final = pattern.sparsity if isinstance(pattern, NM) else 0.99
    sparsity *= final
    if criterion.scores_outputs and not pattern.whole_outputs:
        with pytest.raises(InvalidArgumentError, match="whole outputs"):
            tfprune.prune(scored_net(), final, criterion, pattern, data=0)
        return
    rng = np.random.default_rng(0)
    for weight, gathered in scored_weights():
        alive = local_mask(rng.random(weight.values().shape), pruned_before, pattern)
        evidence = {**gathered, "accumulated": rng.normal(size=alive.shape)}
        values = np.where(alive, weight.values(), 0)
        view = WeightView(values, weight.path, 1, weight.layout, alive, 0.5, evidence)
        bound = None if criterion.scores_pruned else alive
        mask = local_mask(
            criterion.score(view), sparsity, pattern, layout=weight.layout, alive=bound
        )
        sizes = pattern.unit_sizes(weight.layout)
        requested = max(round(weight.size * (1 - sparsity)), 1)
        # What is pruned for good cannot come back.
        reachable = requested if bound is None else min(requested, int(alive.sum()))
        assert abs(int(mask.sum()) - reachable) <= np.max(sizes)
        assert bound is None or not (mask & ~alive).any()


@pytest.mark.parametrize("allocation", ["uniform", "global", "erk", "lamp", "uniform_plus"])
@pytest.mark.parametrize("criterion", ["magnitude", "l2", "lamp", "random"])
def test_allocations_keep_the_total_exact(conv_net, criterion, allocation):
    sparse = tfprune.prune_once(conv_net, 0.77, criterion, allocation=allocation)
    weights = choose_weights(sparse)
    zeros = sum(int(np.sum(w.values() == 0)) for w in weights)
    total = sum(w.size for w in weights)
    slack = len(weights) / 2 if allocation == "uniform" else 0
    assert abs(total - zeros - round(total * 0.23)) <= slack


def test_whole_heads_go_in_all_four_kernels_together():
    tokens = keras.Input((5, 8))
    attended = keras.layers.MultiHeadAttention(4, 3, name="mha")(tokens, tokens)
    net = keras.Model(tokens, attended)
    sparse = tfprune.prune_once(net, 0.5, pattern="head")
    attention = sparse.get_layer("mha")
    dead = {
        "query": (np.array(attention.query_dense.kernel) == 0).all(axis=(0, 2)),
        "key": (np.array(attention.key_dense.kernel) == 0).all(axis=(0, 2)),
        "value": (np.array(attention.value_dense.kernel) == 0).all(axis=(0, 2)),
        "output": (np.array(attention.output_dense.kernel) == 0).all(axis=(1, 2)),
    }
    assert dead["query"].sum() == 2
    assert all((heads == dead["query"]).all() for heads in dead.values())
    pruned = tfprune.prune(net, 0.5, pattern="head")
    pruner = tfprune.Pruner(pruned)
    pruner.step()
    assert set(pruner.sparsities().values()) == {0.5}

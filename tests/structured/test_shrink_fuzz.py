"""Random functional graphs, cut at random: every node must agree with the original."""

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

from tests.structured.cuts import assert_cuts_exactly
from tests.structured.random_graphs import GraphMaker

SHARES = (0.05, 0.3, 0.6, 0.95)


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.data())
def test_a_random_graph_is_cut_exactly(data):
    keras.utils.clear_session()
    maker = GraphMaker(lambda options: data.draw(st.sampled_from(options)))
    model = maker.model(data.draw(st.integers(2, 7)))
    assert_cuts_exactly(model, share=data.draw(st.sampled_from(SHARES)))


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(20))
def test_many_random_graphs_are_cut_exactly(batch):
    for seed in range(30 * batch, 30 * batch + 30):
        keras.utils.clear_session()
        rng = np.random.default_rng(seed)
        maker = GraphMaker(lambda options, rng=rng: options[rng.integers(len(options))])
        model = maker.model(int(rng.integers(3, 12)))
        assert_cuts_exactly(model, share=SHARES[seed % len(SHARES)], seed=seed)

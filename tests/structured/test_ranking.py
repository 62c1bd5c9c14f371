import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tfprune.errors import InvalidArgumentError
from tfprune.structured.bit_codes import MIXED, NONE, bit_table, channel_axis, read_codes
from tfprune.structured.labels import Labels
from tfprune.structured.ranking import RankedGroup, Rounding, rank, within_limits


def group(name, start, scores, topology=None):
    scores = np.array(scores, float)
    return RankedGroup(name, np.arange(start, start + len(scores)), scores, topology)


def test_local_scope_takes_the_same_share_of_every_group():
    groups = [group("a", 0, [1, 2, 3, 4]), group("b", 4, [40, 30, 20, 10])]
    assert set(rank(groups, "local", "mean")[:4]) == {0, 1, 6, 7}


def test_global_scope_compares_normalized_scores():
    groups = [group("a", 0, [1, 1, 4]), group("b", 3, [10, 50, 60])]
    assert rank(groups, "global", None).tolist() == [0, 1, 2, 3, 4, 5]
    assert rank(groups, "global", "mean").tolist() == [3, 0, 1, 4, 5, 2]


def test_isomorphic_scope_takes_the_same_share_of_groups_that_are_built_alike():
    groups = [group("a", 0, [1, 2], "x"), group("b", 2, [30, 40], "x"), group("c", 4, [5, 6], "y")]
    assert set(rank(groups, "isomorphic", None)[:3]) == {0, 1, 4}


def test_lamp_spares_the_largest_of_every_group():
    groups = [group("a", 0, [0.1, 0.2]), group("b", 2, [10, 20])]
    assert set(rank(groups, "global", "lamp")[:2]) == {0, 2}


def test_limits_keep_channels_on_every_axis_and_shares_of_groups():
    groups = [group("a", 0, range(8))]
    order = np.arange(8)
    halves = [np.array([0, 1, 2, 3]), np.array([4, 5, 6, 7])]
    limits = {"min_channels": 1, "max_ratio": 1.0}
    assert within_limits(order, groups, halves, **limits).tolist() == [0, 1, 2, 4, 5, 6]
    limits = {"min_channels": 3, "max_ratio": 1.0}
    assert within_limits(order, groups, halves, **limits).tolist() == [0, 4]
    limits = {"min_channels": 1, "max_ratio": 0.25}
    assert within_limits(order, groups, halves, **limits).tolist() == [0, 1]
    # Channels that stay anyway keep an axis from going empty.
    limits = {"min_channels": 1, "max_ratio": 1.0}
    assert len(within_limits(order, groups, [np.arange(-1, 8)], **limits)) == 8


@pytest.mark.parametrize(("count", "kept"), [(0, 20), (1, 20), (3, 16), (11, 8), (16, 8), (19, 8)])
def test_widths_are_rounded_to_the_nearest_multiple_or_left_whole(count, kept):
    groups = [group("a", 0, range(20))]
    sequence = np.arange(19)
    rounding = Rounding(sequence, groups, [np.arange(20)], 8)
    assert rounding.widths(count) == (kept,)
    assert 20 - len(rounding.places((kept,))) == kept


def test_rounded_widths_are_changed_by_a_step_at_a_time():
    groups = [group("a", 0, range(24)), group("b", 24, range(20))]
    rounding = Rounding(np.arange(43), groups, [np.arange(24), np.arange(24, 44)], 8)
    assert list(rounding.neighbours((16, 20))) == [(8, 20), (24, 20), (16, 16)]


def test_a_width_below_the_multiple_is_refused_by_name():
    with pytest.raises(InvalidArgumentError, match=r"`round_to=8` is larger .* `exclude=\['a'\]"):
        Rounding(np.arange(5), [group("a", 0, range(6))], [np.arange(6)], 8)


@hypothesis.given(st.lists(st.integers(0, 12), min_size=1, max_size=40))
def test_bit_codes_spell_the_channel_of_each_element(sources):
    changed = bit_table(13)[:, sources]
    assert read_codes(changed).tolist() == sources
    both = changed | bit_table(13)[:, [(source + 1) % 13 for source in sources]]
    assert (read_codes(both) == MIXED).all()
    assert (read_codes(np.zeros_like(changed)) == NONE).all()


def test_the_channel_axis_is_the_one_with_one_channel_a_slice():
    codes = np.broadcast_to(np.arange(4)[:, None], (4, 3))
    assert channel_axis(codes, preferred=1) == 0
    # Two heads of three: united within the slices, three units are left.
    assert channel_axis(np.arange(6).reshape(2, 3), preferred=0) == 1


@hypothesis.given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_united_ids_have_one_root_and_share_their_reason(pairs):
    labels = Labels()
    labels.new(10)
    labels.freeze(np.array([3]), "why")
    for one, other in pairs:
        labels.unite(np.array([one]), np.array([other]))
    roots = labels.roots(np.arange(10))
    assert all(roots[one] == roots[other] for one, other in pairs)
    assert labels.is_frozen(np.arange(10)).tolist() == (roots == roots[3]).tolist()
    assert labels.reasons(np.arange(10)) == ["why"]

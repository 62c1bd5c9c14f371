"""The minimum cut, against all cuts there are."""

from itertools import product

import hypothesis.strategies as st
from hypothesis import given

from tfprune.export.sparse_runtime.compiler.cut import SINK, SOURCE, CutGraph

nodes = [SOURCE, "a", "b", "c", "d", SINK]
edges = st.lists(
    st.tuples(st.sampled_from(nodes), st.sampled_from(nodes), st.floats(0, 9)), max_size=15
)


def cost(edges, side):
    return sum(weight for start, end, weight in edges if start in side and end not in side)


@given(edges)
def test_no_cut_costs_less(edges):
    edges = [edge for edge in edges if edge[0] != SINK and edge[1] != SOURCE]
    graph = CutGraph()
    for edge in edges:
        graph.connect(*edge)
    found = cost(edges, {SOURCE, *graph.source_side()})
    inner = nodes[1:-1]
    least = min(
        cost(edges, {SOURCE, *(node for node, chosen in zip(inner, choice, strict=True) if chosen)})
        for choice in product([False, True], repeat=len(inner))
    )
    assert found <= least + 1e-9

"""A minimum cut: which of two sides each node of a graph goes to, at the least total cost.

Dinic's algorithm. Nodes are any hashable values; `SOURCE` and `SINK` are the two sides. An edge
costs its weight if it starts on the side of the source and ends on that of the sink.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable
from typing import Any

SOURCE, SINK = "source", "sink"
_EPSILON = 1e-12


class CutGraph:
    """A directed graph with weights.

    Example:
        >>> graph = CutGraph()
        >>> graph.connect(SOURCE, "a", 3.0)
        >>> graph.connect("a", "b", 1.0)
        >>> graph.connect("b", SINK, 2.0)
        >>> graph.source_side()
        {'a'}
    """

    def __init__(self) -> None:
        self._capacity: dict[Any, dict[Any, float]] = defaultdict(lambda: defaultdict(float))

    def connect(self, start: Hashable, end: Hashable, weight: float) -> None:
        """Add an edge; weights of the same edge add up."""
        self._capacity[start][end] += weight
        self._capacity[end][start] += 0.0

    def source_side(self) -> set:
        """Return the nodes on the side of the source, without the source itself."""
        residual = {start: dict(ends) for start, ends in self._capacity.items()}
        while SINK in (levels := _levels(residual)):
            ends = {node: list(edges) for node, edges in residual.items()}
            position = dict.fromkeys(ends, 0)  # Edges before it lead nowhere on these levels.
            while (path := _path(residual, levels, ends, position)) is not None:
                flow = min(residual[start][end] for start, end in path)
                for start, end in path:
                    residual[start][end] -= flow
                    residual[end][start] += flow
        return set(levels) - {SOURCE}


def _levels(residual: dict) -> dict:
    """Return the distance from the source of every node that can be reached."""
    levels, queue = {SOURCE: 0}, deque([SOURCE])
    while queue:
        node = queue.popleft()
        for end, capacity in residual.get(node, {}).items():
            if capacity > _EPSILON and end not in levels:
                levels[end] = levels[node] + 1
                queue.append(end)
    return levels


def _path(residual: dict, levels: dict, ends: dict, position: dict) -> list | None:
    """Return the edges of a path with room that goes down one level with each; None at the end."""
    path: list[tuple] = []
    node = SOURCE
    while node != SINK:
        while position[node] < len(ends[node]):
            end = ends[node][position[node]]
            if residual[node][end] > _EPSILON and levels.get(end) == levels[node] + 1:
                break
            position[node] += 1
        else:
            if not path:
                return None
            node, _ = path.pop()
            position[node] += 1
            continue
        path.append((node, end))
        node = end
    return path

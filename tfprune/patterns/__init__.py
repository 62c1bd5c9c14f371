"""Sparsity patterns: which shapes of weights are pruned together.

A pattern cuts a weight into *units* that are kept or pruned as a whole, and ranks them. To add one,
subclass `Pattern` and define `unit_scores`, `unit_sizes` and `expand` (`Vector` is the example to
follow).
"""

from tfprune.patterns.base import Pattern
from tfprune.patterns.blocks import Block
from tfprune.patterns.head import Head
from tfprune.patterns.nm import NM
from tfprune.patterns.slices import Channel, Column, Filter, Kernel, Row
from tfprune.patterns.unstructured import Unstructured
from tfprune.patterns.vector import Vector
from tfprune.patterns.xnnpack import Xnnpack

__all__ = [
    "NM",
    "Block",
    "Channel",
    "Column",
    "Filter",
    "Head",
    "Kernel",
    "Pattern",
    "Row",
    "Unstructured",
    "Vector",
    "Xnnpack",
]

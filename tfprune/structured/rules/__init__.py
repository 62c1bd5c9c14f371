"""Rules for layers with weights: which axis of which weight belongs to which channels.

A rule is given a `Site` - one call of a layer - and the `Book`; it claims the axes of the layer's
weights and returns the wirings of the outputs. `rule_for(layer)` finds it; layers without a rule
are probed like operations, and their weights guessed and tested (`generic`).
"""

from tfprune.structured.rules import attention, convolution, matrix, normalization, recurrent
from tfprune.structured.rules.registry import Site, rule_for

__all__ = [
    "Site",
    "attention",
    "convolution",
    "matrix",
    "normalization",
    "recurrent",
    "rule_for",
]

"""Allocation: how a target sparsity is shared between the weights of a model.

To add one, subclass `Allocation` and define `sparsities` (`Uniform` and `Erk` are the examples to
follow).
"""

from tfprune.allocation.base import Allocation, WeightInfo
from tfprune.allocation.erk import Erk
from tfprune.allocation.one_threshold import Global, Lamp, lamp_scores
from tfprune.allocation.per_layer import PerLayer, PerWeight
from tfprune.allocation.staged import Staged
from tfprune.allocation.uniform import Uniform, UniformPlus

__all__ = [
    "Allocation",
    "Erk",
    "Global",
    "Lamp",
    "PerLayer",
    "PerWeight",
    "Staged",
    "Uniform",
    "UniformPlus",
    "WeightInfo",
    "lamp_scores",
]

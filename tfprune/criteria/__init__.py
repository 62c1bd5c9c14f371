"""Criteria: a score per weight that says how much it matters (its saliency).

`Criterion.get("magnitude")` finds one by name. To add one, subclass `Criterion` in a file of its
own and import it here.
"""

from tfprune.criteria.activation import (
    ActivationMax,
    ActivationMean,
    ActivationMin,
    ActivationVariance,
    Apoz,
)
from tfprune.criteria.base import Criterion, WeightView
from tfprune.criteria.dynamic import Rigl, Set
from tfprune.criteria.fisher import BlockFisher, Fisher
from tfprune.criteria.fpgm import Fpgm
from tfprune.criteria.gradient import GradientMagnitude, Snip, Taylor
from tfprune.criteria.grasp import Grasp
from tfprune.criteria.lamp import Lamp
from tfprune.criteria.magnitude import L2, Magnitude
from tfprune.criteria.movement import Movement
from tfprune.criteria.norm_scale import NormScale
from tfprune.criteria.random import Random
from tfprune.criteria.wanda import Wanda

__all__ = [
    "L2",
    "ActivationMax",
    "ActivationMean",
    "ActivationMin",
    "ActivationVariance",
    "Apoz",
    "BlockFisher",
    "Criterion",
    "Fisher",
    "Fpgm",
    "GradientMagnitude",
    "Grasp",
    "Lamp",
    "Magnitude",
    "Movement",
    "NormScale",
    "Random",
    "Rigl",
    "Set",
    "Snip",
    "Taylor",
    "Wanda",
    "WeightView",
]

"""Sparsity schedules: when the masks are updated, and to which sparsity.

A schedule is a pure function of the step, with no state and no TensorFlow. Steps count the batches
given to the model, from 1. The masks are updated at `begin_step`, then every `frequency` steps, and
always at `end_step`, where the final sparsity is reached whatever the frequency.
"""

from tfprune.moments import Epochs, Fraction
from tfprune.schedules.base import Schedule, check_sparsity
from tfprune.schedules.fixed import ConstantSparsity, Keep, Staircase, Threshold, as_schedule
from tfprune.schedules.ramps import (
    CosineDecay,
    ExponentialDecay,
    LinearDecay,
    OneCycle,
    PolynomialDecay,
    Ramp,
)

__all__ = [
    "ConstantSparsity",
    "CosineDecay",
    "Epochs",
    "ExponentialDecay",
    "Fraction",
    "Keep",
    "LinearDecay",
    "OneCycle",
    "PolynomialDecay",
    "Ramp",
    "Schedule",
    "Staircase",
    "Threshold",
    "as_schedule",
    "check_sparsity",
]

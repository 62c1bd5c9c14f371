"""Penalties and constraints on the weights of a model: what prepares weights to be pruned.

Keras's own regularizers and constraints are attached as they are, by `regularize` and `constrain`;
here is what Keras lacks.
"""

from tfprune.regularization.attachment import constrain, regularize
from tfprune.regularization.clip_range import ClipRange
from tfprune.regularization.freezing import FreezeWeights
from tfprune.regularization.group_lasso import GroupLasso
from tfprune.regularization.group_sparsity import GroupSparsity
from tfprune.regularization.growing import GrowingRegularization

__all__ = [
    "ClipRange",
    "FreezeWeights",
    "GroupLasso",
    "GroupSparsity",
    "GrowingRegularization",
    "constrain",
    "regularize",
]

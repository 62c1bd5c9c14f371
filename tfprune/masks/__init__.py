"""Scores, pattern and sparsity become boolean masks, with exact counts. numpy only.

Of `size` weights, k = max(round-half-even(size * (1 - sparsity)), 1) are kept, computed in float64:
the k with the highest scores, and among equal scores those with the lower index. A local mask is
cut within one weight, global masks by one threshold over all of them; threshold masks keep what
scores at least a given value.
"""

from tfprune.masks.counts import kept_count, kept_weights
from tfprune.masks.sparsity import global_masks, local_mask
from tfprune.masks.threshold import threshold_masks
from tfprune.masks.units import ScoredWeight

__all__ = [
    "ScoredWeight",
    "global_masks",
    "kept_count",
    "kept_weights",
    "local_mask",
    "threshold_masks",
]

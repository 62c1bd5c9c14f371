"""Criteria: a score per weight that says how much it matters (its saliency).

`Criterion.get("magnitude")` finds one by name. To add one, subclass `Criterion` in a file of its
own and import it here.
"""

from tfprune.criteria.base import Criterion, WeightView
from tfprune.criteria.magnitude import Magnitude
from tfprune.criteria.random import Random

__all__ = ["Criterion", "Magnitude", "Random", "WeightView"]

"""Evidence: what criteria need to know beyond the weights, gathered from a model and its data.

`gather(names, probe)` runs the collectors that the names ask for. A collector gets a `Probe` and
returns one array for each of its weights; to add one, write it in a file of its own and list it in
`COLLECTORS`.
"""

from tfprune.evidence.probe import Probe
from tfprune.evidence.registry import COLLECTORS, check_data, gather

__all__ = ["COLLECTORS", "Probe", "check_data", "gather"]

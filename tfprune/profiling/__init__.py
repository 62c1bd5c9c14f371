"""What a model costs: parameters, non-zeros, MACs, FLOPs, bytes and latency.

The convention, once for all of it: counts are for one example (batch 1) at inference; one MAC is a
multiplication and an addition and so two FLOPs; FLOPs add to that one per bias addition and one per
elementwise operation, which `tfprune.profiling.rules` spells out. "Effective" is what a runtime
that skips every zero weight would do: MACs times the non-zero fraction of that kernel.

Names are loaded when first used, so that importing this package does not import TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfprune.profiling.latency import Latency, measure_latency
    from tfprune.profiling.profiler import profile
    from tfprune.profiling.report import Bytes, LayerProfile, Profile
    from tfprune.profiling.rules import Call, Work, register_macs

__all__ = [
    "Bytes",
    "Call",
    "Latency",
    "LayerProfile",
    "Profile",
    "Work",
    "measure_latency",
    "profile",
    "register_macs",
]

_HOMES = {
    "Bytes": "report",
    "Call": "rules",
    "Latency": "latency",
    "LayerProfile": "report",
    "Profile": "report",
    "Work": "rules",
    "measure_latency": "latency",
    "profile": "profiler",
    "register_macs": "rules",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that holds it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

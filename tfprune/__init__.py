"""tfprune: pruning and compression for Keras 3, verified where it ships.

The public names, nothing else. They are imported when first used, so that `import tfprune` does not
load TensorFlow; once Keras is imported - before or after -, files with pruned layers load without
custom scopes.

Example:
    >>> import keras, tfprune
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = tfprune.prune(model, schedule=tfprune.schedules.PolynomialDecay(0.0, 0.8))
    >>> plain = tfprune.strip(pruned)
"""

import importlib
from typing import Any

from tfprune._keras_import import when_keras_is_imported
from tfprune._version import __version__

_HOME = {
    "ExportReport": "tfprune.export",
    "Profile": "tfprune.profiling",
    "Pruned": "tfprune.wrappers",
    "Pruner": "tfprune.pruner",
    "export_model": "tfprune.export",
    "is_pruned": "tfprune.pruning",
    "load_model": "tfprune.checkpoints",
    "plan": "tfprune.planning",
    "profile": "tfprune.profiling",
    "prune": "tfprune.pruning",
    "prune_once": "tfprune.one_shot",
    "register_prunable": "tfprune.prunable",
    "save_packed": "tfprune.checkpoints",
    "shrink": "tfprune.structured.shrinking",
    "strip": "tfprune.pruning",
}
_MODULES = (
    "allocation",
    "callbacks",
    "checkpoints",
    "criteria",
    "errors",
    "evidence",
    "export",
    "masks",
    "methods",
    "patterns",
    "regularization",
    "schedules",
    "structured",
    "targets",
)

__all__ = [
    "ExportReport",
    "Profile",
    "Pruned",
    "Pruner",
    "__version__",
    "allocation",
    "callbacks",
    "checkpoints",
    "criteria",
    "errors",
    "evidence",
    "export",
    "export_model",
    "is_pruned",
    "load_model",
    "masks",
    "methods",
    "patterns",
    "plan",
    "profile",
    "prune",
    "prune_once",
    "register_prunable",
    "regularization",
    "save_packed",
    "schedules",
    "shrink",
    "strip",
    "structured",
    "targets",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"tfprune.{name}")
    raise AttributeError(f"module 'tfprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


# Registers the wrappers with Keras, whose loader has to know them.
when_keras_is_imported("tfprune.wrappers")

"""Import a module as soon as Keras has been imported, and not before."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def when_keras_is_imported(module: str) -> None:
    """Import `module` now if Keras is loaded, else right after Keras has loaded."""
    if "keras" in sys.modules:
        importlib.import_module(module)
    else:
        sys.meta_path.insert(0, _AfterKeras(module))


class _AfterKeras(MetaPathFinder):
    """Finds Keras once, and makes its loader import one more module at the end."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("keras")
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_then_import(keras: ModuleType) -> None:
            execute(keras)
            importlib.import_module(self._module)

        spec.loader.exec_module = execute_then_import
        return spec

"""`SavedModelRunner`: a SavedModel in TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfprune.export.runners.base import Runner
from tfprune.profiling.latency import time_calls


class SavedModelRunner(Runner):
    """A SavedModel in TensorFlow.

    TensorFlow has one thread pool for the whole process, sized once, before a model is exported:
    `threads` says what it has, and cannot change it.

    Args:
        path: folder of the SavedModel.
        threads: ignored, see above.
    """

    def __init__(self, path: Path, threads: int):
        import tensorflow as tf

        del threads
        self.threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()
        self.runtime = f"tensorflow {tf.__version__}"
        # The signature holds only a weak reference to the variables: keep what was loaded.
        self._loaded = tf.saved_model.load(str(path))
        self._call = self._loaded.signatures["serving_default"]
        self._constant = tf.constant

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Runner.run`."""
        outputs = self._call(**{name: self._constant(array) for name, array in inputs.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def time(self, inputs: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """See `Runner.time`; inputs are tensors already, outputs are waited for."""
        tensors = {name: self._constant(array) for name, array in inputs.items()}

        def call() -> None:
            for tensor in self._call(**tensors).values():
                tensor.numpy()

        return time_calls(call, runs)

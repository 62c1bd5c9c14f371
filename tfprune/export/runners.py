"""Runners: one small class per runtime that an artifact ships to.

A `Runner` loads an artifact and answers two questions: what does it compute, and how long does a
call take. A further runtime (arm64 under an emulator, a browser, a phone) is one more subclass.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfprune.errors import VerificationError
from tfprune.profiling.latency import time_calls


class Runner(ABC):
    """An artifact, loaded in its runtime.

    Attributes:
        runtime: name and version of the runtime.
        threads: threads that it may use.
    """

    runtime: str
    threads: int

    @abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs.

        Args:
            inputs: one batch, by input name of the signature.

        Returns:
            The outputs by name: the keys of a dict output, else `output_0`, `output_1`, ...
        """

    @abstractmethod
    def time(self, inputs: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """Return the milliseconds that each of `runs` calls took, after a warm-up."""


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


class LiteRtRunner(Runner):
    """A TFLite file in LiteRT (`ai_edge_litert`), on the CPU with XNNPACK.

    Args:
        path: the file.
        threads: threads of the interpreter.
    """

    def __init__(self, path: Path, threads: int):
        from importlib.metadata import version

        from ai_edge_litert.interpreter import Interpreter

        self.threads = threads
        self.runtime = f"ai-edge-litert {version('ai-edge-litert')}"
        self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        signature = self._interpreter.get_signature_runner()
        # By name through the signature: the order of the raw tensors is the converter's own.
        self._inputs = signature.get_input_details()
        self._outputs = signature.get_output_details()
        self._shapes = {name: tuple(detail["shape"]) for name, detail in self._inputs.items()}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Runner.run`."""
        self._feed(inputs)
        self._interpreter.invoke()
        return {
            name: self._interpreter.get_tensor(detail["index"])
            for name, detail in self._outputs.items()
        }

    def time(self, inputs: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """See `Runner.time`; copying the inputs in is not counted."""
        self._feed(inputs)
        return time_calls(self._interpreter.invoke, runs)

    def _feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            for name, detail in self._inputs.items():
                self._interpreter.resize_tensor_input(detail["index"], shapes[name])
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, detail in self._inputs.items():
            self._interpreter.set_tensor(detail["index"], inputs[name])


class NoAvxRunner(Runner):
    """A TFLite file in LiteRT on an emulated x86 processor without AVX.

    There XNNPACK runs sparse models in its sparse mode, as it does on arm64 and in browsers; with
    AVX it does not, and what is wrong in that mode looks right. Times are those of the emulator.

    Args:
        path: the file.
        threads: threads of the interpreter.
    """

    NAME = "x86 without AVX (emulated)"
    COMMAND = ("qemu-x86_64", "-cpu", "Nehalem")

    def __init__(self, path: Path, threads: int):
        from importlib.metadata import version

        self.threads = threads
        self.runtime = f"ai-edge-litert {version('ai-edge-litert')}, {self.NAME}"
        self._path = path

    @classmethod
    def missing(cls) -> str:
        """Return how to install what is missing to run this; empty if nothing is."""
        return "" if shutil.which(cls.COMMAND[0]) else "apt-get install qemu-user"

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Runner.run`."""
        return self._work(inputs, runs=0)[0]

    def time(self, inputs: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """See `Runner.time`."""
        return self._work(inputs, runs)[1]

    def _work(
        self, inputs: Mapping[str, np.ndarray], runs: int
    ) -> tuple[dict[str, np.ndarray], list[float]]:
        with tempfile.TemporaryDirectory() as folder:
            given, found = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
            np.savez(given, **inputs)
            worker = Path(__file__).with_name("litert_worker.py")
            arguments = [worker, self._path, given, found, runs, self.threads]
            process = subprocess.run(
                [*self.COMMAND, sys.executable, *map(str, arguments)],
                capture_output=True,
                text=True,
                check=False,
            )
            if process.returncode:
                lines = process.stderr.strip().splitlines() or [f"exit {process.returncode}"]
                raise VerificationError(
                    f"{self._path.name} does not run on {self.runtime}: {lines[-1]}"
                )
            with np.load(found) as arrays:
                outputs = dict(arrays)
        return outputs, outputs.pop("@milliseconds").tolist()

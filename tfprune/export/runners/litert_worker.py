"""A TFLite file in LiteRT: loaded in this process, or served to another one over pipes.

    python litert_worker.py MODEL.tflite THREADS

That is what the emulated runners start, in the interpreter of another processor: it needs numpy and
`ai_edge_litert`, nothing else. It answers each request until its input ends. A message is a line
of JSON, which says how many bytes of `.npz` follow.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

WARM_UP = 3


class LoadedModel:
    """A TFLite file in the interpreter of this process, on the CPU with XNNPACK.

    Inputs and outputs go by the names of the signature, and of the tensors where a file has none.

    Attributes:
        inputs: by name, with `shape`, `shape_signature` (-1: open) and `dtype`.
    """

    def __init__(self, path: str, threads: int):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=path, num_threads=threads)
        self.inputs, self._outputs = _details(self._interpreter)
        self._shapes = {name: tuple(detail["shape"]) for name, detail in self.inputs.items()}
        self._interpreter.allocate_tensors()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs for one batch."""
        self._feed(inputs)
        self._interpreter.invoke()
        return {
            name: self._interpreter.get_tensor(detail["index"])
            for name, detail in self._outputs.items()
        }

    def time(self, inputs: Mapping[str, np.ndarray], runs: int, warm_up: int) -> list[float]:
        """Return the milliseconds of each call; copying the inputs in is not counted."""
        self._feed(inputs)
        milliseconds = []
        for _ in range(warm_up + runs):
            started = time.perf_counter()
            self._interpreter.invoke()
            milliseconds.append(1e3 * (time.perf_counter() - started))
        return milliseconds[warm_up:]

    def _feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            for name, detail in self.inputs.items():
                self._interpreter.resize_tensor_input(detail["index"], shapes[name])
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, detail in self.inputs.items():
            self._interpreter.set_tensor(detail["index"], inputs[name])


def _details(interpreter: Any) -> tuple[dict, dict]:
    # By name through the signature: the order of the raw tensors is the converter's own. It must be
    # gone when the interpreter runs, which refuses other references.
    signatures = interpreter.get_signature_list()
    if not signatures:
        ends = interpreter.get_input_details(), interpreter.get_output_details()
        inputs, outputs = ({detail["name"]: detail for detail in end} for end in ends)
        return inputs, outputs
    key = "serving_default" if "serving_default" in signatures else next(iter(signatures))
    signature = interpreter.get_signature_runner(key)
    return signature.get_input_details(), signature.get_output_details()


def read_message(stream: BinaryIO) -> tuple[dict, dict[str, np.ndarray]] | None:
    """Return the fields and arrays of the next message; None if there is none."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    fields = json.loads(line)
    content = stream.read(fields.pop("@bytes"))
    with np.load(io.BytesIO(content)) as arrays:
        return fields, dict(arrays)


def write_message(stream: BinaryIO, fields: dict, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a message."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    stream.write(json.dumps({**fields, "@bytes": content.tell()}).encode() + b"\n")
    stream.write(content.getbuffer())
    stream.flush()


def serve(path: str, threads: str) -> None:
    """Load the file, say so, and answer requests: with outputs, or with the times of `runs`."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What native code prints is no answer.
    model = LoadedModel(path, int(threads))
    write_message(answers, {}, {})
    cold = True
    while (message := read_message(requests)) is not None:
        fields, inputs = message
        if runs := fields["runs"]:
            # Under an emulator each call is dear, and one is enough to be warm.
            times = model.time(inputs, runs, warm_up=int(cold))
            write_message(answers, {"milliseconds": times}, {})
        else:
            write_message(answers, {}, model.run(inputs))
        cold = False


if __name__ == "__main__":
    serve(*sys.argv[1:])

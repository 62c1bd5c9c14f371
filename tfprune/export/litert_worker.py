"""Run a TFLite file in a process of its own: what the emulated runners start.

    python litert_worker.py MODEL.tflite INPUTS.npz OUTPUTS.npz RUNS THREADS

It needs numpy and ai_edge_litert, nothing else. The outputs come by name, with the milliseconds of
each run under "@milliseconds".
"""

import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(model: str, inputs: str, outputs: str, runs: str, threads: str) -> None:
    """Run, time, save."""
    interpreter = Interpreter(model_path=model, num_threads=int(threads))
    interpreter.allocate_tensors()
    fed, fetched = _details(interpreter)
    with np.load(inputs) as arrays:
        for name, detail in fed.items():
            interpreter.set_tensor(detail["index"], arrays[name])
    interpreter.invoke()
    milliseconds = []
    for _ in range(int(runs)):
        started = time.perf_counter()
        interpreter.invoke()
        milliseconds.append(1e3 * (time.perf_counter() - started))
    results = {name: interpreter.get_tensor(detail["index"]) for name, detail in fetched.items()}
    np.savez(outputs, **results, **{"@milliseconds": milliseconds})


def _details(interpreter: Interpreter) -> tuple[dict, dict]:
    # The signature must be gone when the interpreter runs, which refuses other references.
    signature = interpreter.get_signature_runner()
    return signature.get_input_details(), signature.get_output_details()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Runs many files at once on an emulated processor without AVX, where sparse mode is on.

    qemu-x86_64 -cpu Nehalem python no_avx.py FOLDER

For each `N.tflite` of the folder, with inputs in `N.npz`, it leaves `N.out.npz`, or `N.txt` with
an error. It needs numpy and ai_edge_litert, nothing else.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

QEMU = shutil.which("qemu-x86_64")


def outputs(content, inputs):
    """Return the outputs of a file, in order."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def run_without_avx(contents, inputs, folder):
    """Return the outputs of each file for its inputs; an error in words where it does not run."""
    for number, (content, arrays) in enumerate(zip(contents, inputs, strict=True)):
        Path(folder, f"{number}.tflite").write_bytes(content)
        np.savez(Path(folder, f"{number}.npz"), *arrays)
    command = [QEMU, "-cpu", "Nehalem", sys.executable, __file__, str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    found = []
    for number in range(len(contents)):
        if (error := Path(folder, f"{number}.txt")).exists():
            found.append(error.read_text())
            continue
        with np.load(Path(folder, f"{number}.out.npz")) as arrays:
            found.append([arrays[name] for name in arrays.files])
    return found


def main(folder):
    """Run the files of a folder."""
    for path in Path(folder).glob("*.tflite"):
        with np.load(path.with_suffix(".npz")) as arrays:
            inputs = [arrays[name] for name in arrays.files]
        try:
            np.savez(path.with_suffix(".out.npz"), *outputs(path.read_bytes(), inputs))
        except RuntimeError as error:
            path.with_suffix(".txt").write_text(str(error))


if __name__ == "__main__":
    main(sys.argv[1])

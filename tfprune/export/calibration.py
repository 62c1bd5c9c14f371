"""Calibrated TFLite conversion in a process of its own.

TensorFlow's calibrator does not raise on what it cannot handle, it crashes: on every loop, so on
every recurrent layer that is not unrolled (tensorflow#41305), and on infinite activations
(tensorflow#120295). A crash must not take the process that trained the model with it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfprune.errors import UnsupportedModelError
from tfprune.export.data import Samples


def convert_calibrated(
    saved_model: Path, path: Path, samples: Samples, batch_size: int, ops: str
) -> None:
    """Convert a SavedModel to an integer TFLite file, in a child process.

    Args:
        saved_model: folder of the SavedModel.
        path: the file to write.
        samples: what to calibrate on.
        batch_size: examples per call.
        ops: name of the `tf.lite.OpsSet` that the file may use.

    Raises:
        UnsupportedModelError: the converter crashed.
        RuntimeError: the converter refused the model; the message holds its output.
    """
    folder = saved_model.parent / "representative"
    folder.mkdir(exist_ok=True)
    for name, array in samples.arrays.items():
        np.save(folder / f"{name}.npy", array)
    job = {
        "saved_model": str(saved_model),
        "path": str(path),
        "arrays": {name: str(folder / f"{name}.npy") for name in samples.arrays},
        "batch_size": batch_size,
        "ops": ops,
    }
    child = subprocess.run(
        [sys.executable, "-P", "-m", "tfprune.export.calibration", json.dumps(job)],
        # The same packages as here, and no claim on an accelerator that this process holds.
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if child.returncode < 0:
        raise UnsupportedModelError(
            f"TensorFlow's converter crashed (signal {-child.returncode}) while it calibrated "
            f"{path.name}; this process and the former export are unharmed. It is known to crash "
            "on recurrent layers unless they are built with `unroll=True`, and on infinite "
            "activations. `tflite_dynamic` stores int8 weights too, without calibration."
        )
    if child.returncode:
        raise RuntimeError(child.stderr)


def _convert(
    saved_model: str, path: str, arrays: dict[str, str], *, batch_size: int, ops: str
) -> None:
    import tensorflow as tf

    loaded = {name: np.load(file, mmap_mode="r") for name, file in arrays.items()}

    def representative_dataset() -> Iterator[dict[str, np.ndarray]]:
        for batch, _ in Samples(loaded, path).batches(batch_size):
            yield batch

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet[ops]]
    converter.representative_dataset = representative_dataset
    Path(path).write_bytes(converter.convert())


if __name__ == "__main__":
    _convert(**json.loads(sys.argv[1]))

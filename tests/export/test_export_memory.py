"""How much memory an export takes."""

import json
import subprocess
import sys
import textwrap

import pytest

CODE = """
    import json, sys
    import keras, numpy as np
    import tfprune

    units, depth, folder, options = json.loads(sys.argv[1])
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((units,))])
    for _ in range(depth):
        layer = keras.layers.Dense(units, use_bias=False, kernel_initializer="zeros")
        model.add(layer)
        kernel = np.zeros((units, units), np.float32)
        kernel[::10] = rng.standard_normal(kernel[::10].shape, np.float32)
        layer.kernel.assign(kernel)
    del kernel
    size = 4 * depth * units**2
    report = tfprune.export_model(model, folder, **options, runs=1)
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    peak = 1024 * int(line.split()[1])
    (artifact,) = report.artifacts
    print(json.dumps([size, peak, artifact.bytes, artifact.sparsity]))
"""
RUNTIME = 800 << 20  # TensorFlow itself, once it is imported.


def export(units, depth, folder, **options):
    """Export in a process of its own; return bytes of weights, peak, file, and the sparsity."""
    arguments = json.dumps([units, depth, str(folder), options])
    command = [sys.executable, "-c", textwrap.dedent(CODE), arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_saved_model_takes_three_times_the_memory_of_its_weights_at_most(tmp_path):
    size, peak, *_ = export(4096, 5, tmp_path / "out", formats="savedmodel")
    assert peak <= 3 * size + RUNTIME

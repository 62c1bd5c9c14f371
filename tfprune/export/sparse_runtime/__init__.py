"""XNNPACK's sparse mode: what runs in it, and what keeps a model out of it.

XNNPACK is the CPU engine of LiteRT on phones and in browsers. It runs unstructured sparsity where a
whole cluster of operators can stay in channels-first layout; see `rules.py`. Nothing here needs
TensorFlow: a `.tflite` file of anyone's making can be checked, and fixed.
"""

from tfprune.export.sparse_runtime.check import SparseRuntimeReport, check_file
from tfprune.export.sparse_runtime.fix import Fixed, fix_file

__all__ = ["Fixed", "SparseRuntimeReport", "check_file", "fix_file"]

"""Run a SavedModel through TensorFlow's C API: what servers in other languages do.

python c_api.py FOLDER INPUTS.npy OUTPUTS.npy INPUT_OP OUTPUT_OP OUTPUT_INDEX
"""

import ctypes
import importlib.util
import sys
from pathlib import Path

import numpy as np

FLOAT = 1


class Port(ctypes.Structure):
    """TF_Output."""

    _fields_ = [("oper", ctypes.c_void_p), ("index", ctypes.c_int)]


def load_library():
    """Load the C API from the wheel, without importing TensorFlow."""
    folder = Path(importlib.util.find_spec("tensorflow").origin).parent
    ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"), ctypes.RTLD_GLOBAL)
    for name in ("NewStatus", "NewSessionOptions", "NewGraph", "LoadSessionFromSavedModel",
                 "GraphOperationByName", "AllocateTensor", "TensorData"):  # fmt: skip
        getattr(library, f"TF_{name}").restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    library.TF_TensorByteSize.restype = ctypes.c_size_t
    library.TF_Dim.restype = ctypes.c_int64
    return library


def main(folder, inputs, outputs, input_op, output_op, output_index):
    """Load, run once, save the result."""
    tf, pointer = load_library(), ctypes.c_void_p
    status, graph = pointer(tf.TF_NewStatus()), pointer(tf.TF_NewGraph())

    def check():
        if tf.TF_GetCode(status):
            raise SystemExit(tf.TF_Message(status).decode())

    tags = (ctypes.c_char_p * 1)(b"serve")
    session = pointer(
        tf.TF_LoadSessionFromSavedModel(
            pointer(tf.TF_NewSessionOptions()), None, folder.encode(), tags, 1, graph, None, status
        )
    )
    check()
    array = np.ascontiguousarray(np.load(inputs), np.float32)
    dims = (ctypes.c_int64 * array.ndim)(*array.shape)
    tensor = pointer(tf.TF_AllocateTensor(FLOAT, dims, array.ndim, ctypes.c_size_t(array.nbytes)))
    ctypes.memmove(tf.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
    feed = Port(tf.TF_GraphOperationByName(graph, input_op.encode()), 0)
    fetch = Port(tf.TF_GraphOperationByName(graph, output_op.encode()), int(output_index))
    results = (ctypes.c_void_p * 1)()
    tf.TF_SessionRun(
        session, None, ctypes.byref(feed), ctypes.byref(tensor), 1, ctypes.byref(fetch), results,
        1, None, 0, None, status,
    )  # fmt: skip
    check()
    result = pointer(results[0])
    shape = [tf.TF_Dim(result, axis) for axis in range(tf.TF_NumDims(result))]
    data = ctypes.string_at(tf.TF_TensorData(result), tf.TF_TensorByteSize(result))
    np.save(outputs, np.frombuffer(data, np.float32).reshape(shape))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The `savedmodel` format: a folder for TensorFlow, TensorFlow Serving and every converter.

It has one signature, `serving_default`, with named inputs and outputs, whose batch size is open
unless the model was built for one; more signatures on request. On request, its weights are packed
(`packed_savedmodel.py`). All TFLite formats are converted from such a folder as well: a conversion
from concrete functions can leave out weights.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import UnsupportedModelError
from tfprune.export.formats import Source, Tolerance, register_format
from tfprune.export.runners import SavedModelRunner
from tfprune.export.signature import Signature


def write_saved_model(model: Any, signature: Signature, path: Path) -> None:
    """Write a SavedModel.

    Args:
        model: the plain Keras model.
        signature: its inputs; their names become those of the signature.
        path: the folder to create.

    Raises:
        UnsupportedModelError: Keras cannot export the model.
    """
    import keras

    def serve(inputs: Any) -> Any:
        return model(inputs, training=False)

    try:
        # Not `model.export`, which also tracks the model and so stores every weight twice
        # (keras#23553). The endpoint alone keeps what it uses.
        archive = keras.export.ExportArchive()
        archive.add_endpoint("serve", serve, input_signature=[signature.keras_specs()])
        archive.write_out(str(path), verbose=False)
    except OSError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"Keras cannot export the model {model.name!r} as a SavedModel: {error}"
        ) from error


def stored_weights(path: Path) -> Iterator[np.ndarray]:
    """Yield the floating-point variables of a SavedModel with at least two axes."""
    import tensorflow as tf

    from tfprune.export.packed_savedmodel import packed_weights

    yield from (weight for weight in packed_weights(path) if weight.ndim >= 2)
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    for key, shape in reader.get_variable_to_shape_map().items():
        if len(shape) >= 2 and reader.get_variable_to_dtype_map()[key].is_floating:
            yield reader.get_tensor(key)


@register_format(
    "savedmodel",
    filename="saved_model",
    tolerance=Tolerance(1e-4),
    runner=SavedModelRunner,
    stored_weights=stored_weights,
)
def _write(source: Source, path: Path) -> str:
    if source.packed is None:
        shutil.copytree(source.serving_model, path)
    else:
        from tfprune.export.packed_savedmodel import pack_saved_model

        pack_saved_model(source.serving_model, path, source.packed)
    return ""

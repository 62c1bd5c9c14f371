"""`profile`: count what a model costs, without running it.

The model is traced once with symbolic tensors of batch size 1, so the counts hold for functional,
sequential and subclassed models alike; the weights are read once for non-zeros and bytes.
"""

from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidTypeError, UnsupportedModelError
from tfprune.model_checks import is_tf_keras
from tfprune.profiling.inputs import model_inputs
from tfprune.profiling.recording import record_calls
from tfprune.profiling.report import (
    NO_RULE,
    NOT_CALLED,
    UNKNOWN_SHAPES,
    Bytes,
    LayerProfile,
    Profile,
)
from tfprune.profiling.rules import Call
from tfprune.profiling.sizes import TensorSize, measure_weights
from tfprune.profiling.walk import Node, find_layers


def profile(model: keras.Model, *, input_shapes: Any = None, gzip: bool = True) -> Profile:
    """Count parameters, non-zeros, MACs, FLOPs and bytes of a model, per layer and in total.

    Counts are for one example at inference, 1 MAC = 2 FLOPs; `tfprune.profiling.rules` says what
    is counted for each layer. A layer used several times has its parameters counted once and its
    MACs at every call. Pruning wrappers are looked through: masks are no parameters, and a weight
    that a mask removes is a zero. The effective MACs are those left to a runtime that skips zero
    weights, per kernel: MACs times the fraction of non-zeros. Layers whose costs are not known
    are in `uncounted` and missing from the totals.

    Args:
        model: a built Keras 3 model, pruned or not. It is not changed.
        input_shapes: shape of each input without the batch axis, needed where the model leaves
            sizes open (None): `(224, 224, 3)` for a single input, a list in the order of
            `model.inputs`, or a dict by input name (for a subclassed model by argument of
            `call`). In the place of a shape, anything with a `shape` (batch first) and a `dtype`.
        gzip: whether to compress the weights to measure `bytes.gzip`: about 4 s per 100 MB.

    Returns:
        The `Profile`; `str()` of it is a table.

    Raises:
        InvalidTypeError: if `model` is not a Keras model.
        UnsupportedModelError: if it is a tf_keras model, or not built.
        InvalidArgumentError: if an input size is open, or `input_shapes` does not fit the model.

    Example:
        >>> import keras
        >>> from tfprune.profiling import profile
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> report = profile(model)
        >>> report.parameters, report.macs, report.flops
        (15, 12, 27)
    """
    _check_model(model)
    layers = find_layers(model)
    inputs = model_inputs(model, input_shapes)
    calls = record_calls(model, layers.nodes, inputs)
    weights = [weight for node in layers.nodes for weight in node.weights]
    sizes, gzip_bytes = measure_weights(weights, layers.weight_masks, gzip=gzip)
    rows = []
    for node in layers.nodes:
        row = _profile_layer(node, calls.get(id(node.operation), []), sizes, inputs.batch)
        if row.parameters or row.note or row.flops:
            rows.append(row)
    trainable = {id(weight) for weight in model.trainable_weights}
    return Profile(
        name=model.name,
        parameters=sum(size.size for size in sizes.values()),
        trainable_parameters=sum(sizes[key].size for key in sizes if key in trainable),
        nonzeros=sum(size.nonzeros for size in sizes.values()),
        macs=sum(row.macs or 0 for row in rows),
        effective_macs=sum(row.effective_macs or 0 for row in rows),
        flops=sum(row.flops or 0 for row in rows),
        effective_flops=sum(row.effective_flops or 0 for row in rows),
        bytes=Bytes(
            dense=sum(size.dense for size in sizes.values()),
            sparse=sum(size.sparse for size in sizes.values()),
            gzip=gzip_bytes,
        ),
        layers=tuple(rows),
    )


def _check_model(model: Any) -> None:
    if is_tf_keras(model):
        raise UnsupportedModelError(
            f"{type(model).__name__} is a tf_keras (Keras 2) model, and tfprune works on Keras 3. "
            "Convert it first: `tfprune.compat.tfmot.convert(model)`."
        )
    if not isinstance(model, keras.Model):
        raise InvalidTypeError(
            "`model` must be a Keras model. To profile a layer, put it into one: "
            "`keras.Sequential([keras.Input(shape), layer])`. "
            f"Received: {model!r} of type {type(model).__name__}."
        )
    if not model.built:
        raise UnsupportedModelError(
            f"Model {model.name!r} is not built, so its weights do not exist yet. Call it on a "
            "batch, or call `model.build(input_shape)`, before profiling it."
        )


def _profile_layer(
    node: Node, calls: list[Call], sizes: dict[int, TensorSize], batch: int
) -> LayerProfile:
    own = [sizes[id(weight)] for weight in node.weights]
    note = _note(node, calls)
    known = note in ("", NOT_CALLED)
    macs = effective = other = 0
    if known and node.rule is not None:
        macs, effective, other = _count(node, calls, sizes)
    # A model with a fixed batch was traced with it. Rounded, since a layer may ignore the batch.
    macs, effective, other = (_divide(total, batch) for total in (macs, effective, other))
    return LayerProfile(
        path=node.path,
        class_name=type(node.operation).__name__,
        calls=sum(call.repeats for call in calls),
        input_shapes=calls[0].inputs if calls else (),
        output_shapes=calls[0].outputs if calls else (),
        parameters=sum(size.size for size in own),
        nonzeros=sum(size.nonzeros for size in own),
        macs=macs if known else None,
        effective_macs=effective if known else None,
        flops=2 * macs + other if known else None,
        effective_flops=2 * effective + other if known else None,
        note=note,
    )


def _note(node: Node, calls: list[Call]) -> str:
    if not calls:
        return NOT_CALLED if node.weights else ""
    if node.rule is None:
        return NO_RULE if node.weights else ""
    unknown = any(None in shape for call in calls for shape in (*call.inputs, *call.outputs))
    return UNKNOWN_SHAPES if unknown else ""


def _count(node: Node, calls: list[Call], sizes: dict[int, TensorSize]) -> tuple[int, int, int]:
    """MACs, effective MACs and FLOPs besides the MACs, over all calls."""
    macs = effective = other = 0
    for call in calls:
        for work in node.rule.count(node.operation, call):
            macs += call.repeats * work.macs
            other += call.repeats * work.flops
            kept = work.macs
            if work.kernel is not None and work.macs:
                size, nonzeros = _kernel_size(work.kernel, sizes)
                kept = _divide(work.macs * nonzeros, size)
            effective += call.repeats * kept
    return macs, effective, other


def _divide(total: int, parts: int) -> int:
    """Divide and round to the nearest, in integers: counts pass what a float holds exactly."""
    return (2 * total + parts) // (2 * parts)


def _kernel_size(kernel: Any, sizes: dict[int, TensorSize]) -> tuple[int, int]:
    known = sizes.get(id(kernel))
    if known is not None:
        return known.size, known.nonzeros
    # Computed from several weights (LoRA, packed int4) and so not a variable of the model.
    values = keras.ops.convert_to_numpy(kernel)
    return values.size, int(np.count_nonzero(values))

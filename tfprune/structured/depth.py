"""Depth pruning: leave out the blocks of a model whose removal costs least.

What a block costs is seen by running the model without it. Blocks are chosen one after another,
each in the absence of those before it, since two that are each redundant beside the other are not
both so (greedy, as in Song et al., 2024, "SLEB").
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import operation_fn, unpack_singleton

from tfprune.cloning import LayerCopier, is_rebuildable, rebuild
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.evidence import Probe
from tfprune.structured.blocks import Bypass, ResidualBlock, bypass, find_blocks, graph_of

_LOGGER = logging.getLogger(__name__)


def drop_blocks(
    model: keras.Model,
    blocks: int | str | Iterable[str],
    data: Any = None,
    *,
    verbose: bool | str = "auto",
) -> keras.Model:
    """Return a smaller copy of the model, without some of its residual blocks or layers.

    Its other weights, its names and `trainable` flags are the model's own; train it on to recover.

    Args:
        model: a built Functional or Sequential model.
        blocks: names of the blocks to drop, as `find_blocks` lists them; or how many to drop, those
            whose removal costs least by `data`. By number, residual blocks go; layers alone go from
            models that have no residual blocks.
        data: arrays `x` or `(x, y)`, a `tf.data.Dataset` or a `keras.utils.PyDataset` of batches;
            at most 32 batches are read, of 32 examples where arrays are given.
        verbose: whether a progress bar is shown for each block; by default on a terminal.

    Returns:
        A new, uncompiled model.

    Raises:
        InvalidArgumentError: for an unknown name, more blocks than there are, a number without
            data, or a model without blocks.
        InvalidTypeError: for a value of the wrong type.
        UnsupportedModelError: for a tf_keras, unbuilt, subclassed or pruned model.

    Example:
        >>> inputs = keras.Input((4,))
        >>> x = keras.layers.Add(name="join")([inputs, keras.layers.Dense(4)(inputs)])
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
        >>> drop_blocks(model, ["join"]).count_params(), model.count_params()
        (10, 30)
    """
    known = find_blocks(model)
    if not known:
        raise InvalidArgumentError(
            f"{model.name!r} has nothing to leave out: no residual block, and no layer with "
            "kernels that keeps the shape of its input."
        )
    if isinstance(blocks, int) and not isinstance(blocks, bool):
        candidates = _candidates(known, blocks, data)
        chosen = _cheapest(model, candidates, blocks, data, verbose)
    else:
        chosen = _named(known, blocks)
    smaller, _ = rebuild(
        model, lambda layer, copier: copier.copy(layer), LayerCopier(), bypass(model, chosen)
    )
    return smaller


def block_costs(model: keras.Model, data: Any, *, verbose: bool | str = "auto") -> dict[str, float]:
    """Tell what leaving out each block of a model alone would cost.

    Args:
        model: as in `drop_blocks`.
        data: as in `drop_blocks`.
        verbose: as in `drop_blocks`.

    Returns:
        By the block's name, the rise of the mean loss, if the model is compiled with a loss and
        `data` has targets; otherwise the mean squared change of the model's outputs relative to
        their own mean square (averaged over several outputs). 0 costs nothing.

    Raises:
        InvalidArgumentError: if there is no data.
        UnsupportedModelError: for a tf_keras, unbuilt, subclassed or pruned model.

    Example:
        >>> inputs = keras.Input((4,))
        >>> branch = keras.layers.Dense(4, kernel_initializer="zeros")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Add(name="join")([inputs, branch]))
        >>> block_costs(model, np.ones((8, 4), "float32"))
        {'join': 0.0}
    """
    blocks = find_blocks(model)
    costs = _costs(model, [], blocks, Probe(model, [], data, verbose=_is_shown(verbose)))
    return {block.name: cost for block, cost in zip(blocks, costs, strict=True)}


def _candidates(known: list[ResidualBlock], count: int, data: Any) -> list[ResidualBlock]:
    """Return the blocks to choose from by number, after a check of the number."""
    residual = [block for block in known if not block.is_single_layer]
    candidates = residual or known
    if not 1 <= count <= len(candidates):
        raise InvalidArgumentError(
            f"`blocks` must be a number from 1 to {len(candidates)}, as many as can be left out of "
            f"this model, or their names: {_names(known)}. Received: {count}"
        )
    if data is None:
        raise InvalidArgumentError(
            "Which blocks matter least is seen from what the model computes without them: pass "
            "`data=x` or `data=(x, y)`, or the names of the blocks to drop."
        )
    return candidates


def _named(known: list[ResidualBlock], names: Any) -> list[ResidualBlock]:
    """Return the blocks with the given names."""
    iterable = isinstance(names, Iterable) and not isinstance(names, str)
    wanted = list(names) if iterable else [names]
    if not all(isinstance(name, str) for name in wanted):
        raise InvalidTypeError(
            "`blocks` must be a number of blocks or the names of some, as "
            f"`tfprune.structured.find_blocks(model)` lists them. Received: {names!r}"
        )
    by_name = {block.name: block for block in known}
    unknown = [name for name in wanted if name not in by_name]
    if unknown or not wanted:
        raise InvalidArgumentError(
            f"There is no block named {', '.join(map(repr, unknown)) or 'nothing'} that could be "
            f"left out. Known: {_names(known)}"
        )
    return [by_name[name] for name in wanted]


def _cheapest(
    model: keras.Model,
    candidates: Sequence[ResidualBlock],
    count: int,
    data: Any,
    verbose: bool | str,
) -> list[ResidualBlock]:
    """Choose blocks one after another, each the cheapest in the absence of those before it."""
    probe = Probe(model, [], data, verbose=_is_shown(verbose))
    chosen: list[ResidualBlock] = []
    for _ in range(count):
        gone = bypass(model, chosen)
        left = [block for block in candidates if id(block.merge) not in gone]
        # One that lies in the branch of another is gone together with it.
        if not left:
            break
        costs = _costs(model, chosen, left, probe)
        # argmin would take a NaN for the least.
        best = int(np.argmin(np.nan_to_num(costs, nan=np.inf)))
        _LOGGER.info("Without %s, the cost is %.4g.", left[best].name, costs[best])
        chosen.append(left[best])
    return chosen


def _costs(
    model: keras.Model,
    dropped: Sequence[ResidualBlock],
    candidates: Sequence[ResidualBlock],
    probe: Probe,
) -> list[float]:
    """Return what each candidate costs, next to blocks that are dropped already."""
    variants = [bypass(model, [*dropped, candidate]) for candidate in candidates]
    # Stateless: running the model must not change it, such as the metrics of its losses.
    with keras.StatelessScope():
        batches = [_batch_costs(model, variants, *batch) for batch in probe.batches()]
    changes, scales = (np.sum(part, axis=0) for part in zip(*batches, strict=True))
    return np.mean(changes / np.maximum(scales, np.finfo(float).tiny), axis=1).tolist()


def _batch_costs(
    model: keras.Model, variants: Sequence[Bypass], x: Any, y: Any, sample_weight: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the changes that variants of a model make on a batch, and what they are relative to.

    Returns:
        Float arrays `(variants, outputs)` and `(outputs,)`: the squared changes and the squares of
        each output, or, with one column, the rise of the loss and the size of the batch.
    """
    reference = _run(model, x, {})
    # One at a time: outputs can be large.
    outputs = (_run(model, x, variant) for variant in variants)
    if y is None or not model.compiled or model.loss is None:
        scales = np.array(_squares(reference))
        changes = [_squares(output, reference) for output in outputs]
        return np.reshape(changes, (len(variants), len(scales))), scales
    size = len(keras.tree.flatten(x)[0])
    loss, *losses = [
        float(model.compute_loss(x, y, output, sample_weight, training=False))
        for output in itertools.chain([reference], outputs)
    ]
    return size * (np.array(losses)[:, np.newaxis] - loss), np.array([size])


def _run(model: keras.Model, inputs: Any, functions: Bypass) -> Any:
    """Run a model in inference mode, with some functions in place of operations of its own."""

    def operation(own: Any) -> Any:
        if id(own) in functions:
            return functions[id(own)]
        if is_rebuildable(own):
            return lambda nested_inputs, **_: _run(own, nested_inputs, functions)
        return operation_fn(own, training=False)

    graph = graph_of(model)
    inputs = graph._standardize_inputs(inputs)
    return unpack_singleton(graph._run_through_graph(inputs, operation_fn=operation))


def _squares(outputs: Any, others: Any = None) -> list[float]:
    """Return the sum of the squares of each output, or of its difference to another's."""
    arrays = [_array(output) for output in keras.tree.flatten(outputs)]
    if others is not None:
        others = map(_array, keras.tree.flatten(others))
        arrays = [array - other for array, other in zip(arrays, others, strict=True)]
    return [float(np.sum(np.square(array), dtype=np.float64)) for array in arrays]


def _array(tensor: Any) -> np.ndarray:
    # bfloat16 is not numpy's own.
    return keras.ops.convert_to_numpy(tensor).astype(np.float32)


def _names(blocks: Sequence[ResidualBlock]) -> str:
    return ", ".join(block.name for block in blocks)


def _is_shown(verbose: bool | str) -> bool:
    return sys.stdout.isatty() if verbose == "auto" else bool(verbose)

"""Lottery tickets: sparse networks that train from their early weights as well as the dense one.

Each round trains the network, prunes the weights that matter least, and rewinds everything else -
kept weights, biases, statistics, random seeds - to what it was before the training or, as larger
networks need, after the first few steps of it.

Sources: Frankle & Carbin (2019), "The Lottery Ticket Hypothesis"; Frankle et al. (2020), "Linear
Mode Connectivity and the Lottery Ticket Hypothesis" (rewinding).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.evidence import Probe, check_data
from tfprune.mask_computation import compute_masks, ready_plan
from tfprune.pruned_weight import PrunedWeight
from tfprune.pruner import Pruner
from tfprune.pruning import is_pruned, prune
from tfprune.pruning_plan import PruningPlan
from tfprune.schedules import ConstantSparsity
from tfprune.selection import Selector

Train = Callable[[keras.Model, list[keras.callbacks.Callback]], Any]


def lottery_ticket(
    model: keras.Model,
    train: Train,
    sparsity: float,
    rounds: int = 5,
    *,
    rewind_step: int = 0,
    criterion: Any = "magnitude",
    pattern: Any = "unstructured",
    allocation: Any = "global",
    data: Any = None,
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
) -> keras.Model:
    """Find a sparse network that is trainable from early weights, by iterative pruning.

    The density shrinks by the same factor in each round, and a pruned weight never returns. To see
    what the early weights are worth, train the same masks from new random weights:

        control = tfprune.prune(ticket, "keep")
        for weight in tfprune.Pruner(control).weights:
            weight.variable.assign(keras.initializers.HeNormal()(weight.variable.shape))
            weight.apply_mask()

    Args:
        model: a built Functional or Sequential model at its initial weights. A pruned one keeps its
            masks, so that a ticket may be the start of a sparser one.
        train: function of `(model, callbacks)` that compiles the model and trains it in place, with
            the callbacks passed to `fit`. It is called once per round; what it returns is ignored.
        sparsity: fraction of zeros of the ticket, above the model's own and below 1.
        rounds: how many times to train and prune, at least 1.
        rewind_step: how many steps (batches) of the first round's training the ticket's weights
            have seen, at least 0; with `steps_per_execution` the next boundary counts.
        criterion: as in `tfprune.prune`, but one that neither sums over training steps nor lets
            weights grow back; it looks at the trained weights.
        pattern: as in `tfprune.prune`.
        allocation: as in `tfprune.prune`.
        data: as in `tfprune.prune`.
        include: as in `tfprune.prune`.
        exclude: as in `tfprune.prune`.

    Returns:
        The ticket: an uncompiled model of its own weights, pruned with `schedule="keep"`, ready for
        `compile` and `fit`.

    Raises:
        InvalidArgumentError: for a bad value; or if `train` left the model as it was, or did not
            reach `rewind_step` with the callbacks in use.
        InvalidTypeError: for a value of the wrong type.
        UnsupportedModelError: for a tf_keras, unbuilt or subclassed model.

    Example:
        >>> import tfprune
        >>> x, y = np.ones((32, 8)), np.ones((32, 4))
        >>> def train(model, callbacks):
        ...     model.compile("adam", "mse")
        ...     model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> ticket = lottery_ticket(model, train, sparsity=0.75, rounds=2, rewind_step=1)
        >>> tfprune.Pruner(ticket).sparsity
        0.75
    """
    plan = PruningPlan.create(ConstantSparsity(sparsity), criterion, pattern, allocation)
    _check_arguments(plan, train, rounds, rewind_step)
    check_data(plan.criterion.evidence, data)

    def untrained() -> keras.Model:
        # "keep": the masks hold, whatever the training does.
        return prune(
            model, "keep", criterion, pattern, allocation, include=include, exclude=exclude
        )

    network = untrained()
    weights = Pruner(network).weights
    plan = ready_plan(plan, weights)
    if not is_pruned(model):
        # The zeros of a dense model are weights like the others.
        _set_masks(weights, [np.ones(weight.layout.shape, bool) for weight in weights])
    early: list[np.ndarray] | None = None
    for target in _sparsities(Pruner(network).sparsity, sparsity, rounds):
        snapshot = _EarlyWeights(network, rewind_step) if rewind_step and early is None else None
        before = _checksums(weights)
        train(network, [snapshot] if snapshot else [])
        if _checksums(weights) == before:
            raise InvalidArgumentError(
                "`train` left the weights as they were. It must train the very model that it is "
                "given: `model.compile(...)`, then `model.fit(..., callbacks=callbacks)`."
            )
        early = snapshot.taken() if snapshot else early
        masks = compute_masks(weights, plan, target, probe=Probe(network, weights, data))
        network = untrained()
        weights = Pruner(network).weights
        if early is not None:
            network.set_weights(early)
        _set_masks(weights, masks)
    return network


class _EarlyWeights(keras.callbacks.Callback):
    """Copies the weights of a model once it has been given a number of batches.

    Args:
        network: the model; not necessarily the one that `fit` is called on, such as a Distiller.
        step: the number of batches, over all calls of `fit`.
    """

    def __init__(self, network: keras.Model, step: int) -> None:
        super().__init__()
        self._values: list[np.ndarray] | None = None
        self._network = network
        self._step = step
        self._seen = 0
        self._first = 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note where an execution of one or several steps begins."""
        self._first = batch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the steps, and copy the weights when it is time."""
        steps = self.params.get("steps")
        # Keras names the last step of a full execution even where the data ended before it.
        last = min(batch, steps - 1) if steps else batch
        self._seen += last - self._first + 1
        if self._values is None and self._seen >= self._step:
            self._values = self._network.get_weights()

    def taken(self) -> list[np.ndarray]:
        """Return the weights as `get_weights` lists them.

        Raises:
            InvalidArgumentError: if the training never came to the step.
        """
        if self._values is not None:
            return self._values
        if not self._seen:
            raise InvalidArgumentError(
                "`train` did not use the callbacks that it was given, so the weights to rewind to "
                "are unknown: pass them on, as in `model.fit(..., callbacks=callbacks)`."
            )
        raise InvalidArgumentError(
            f"`train` ended after {self._seen} steps, before `rewind_step`={self._step}: train "
            "longer, or rewind to an earlier step."
        )


def _check_arguments(plan: PruningPlan, train: Any, rounds: Any, rewind_step: Any) -> None:
    if not callable(train):
        raise InvalidTypeError(
            "`train` must be a function of (model, callbacks) that compiles and fits the model. "
            f"Received: {train!r}"
        )
    for name, value, least in (("rounds", rounds, 1), ("rewind_step", rewind_step, 0)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidTypeError(f"`{name}` must be an int. Received: {value!r}")
        if value < least:
            raise InvalidArgumentError(f"`{name}` must be at least {least}. Received: {value}")
    if plan.criterion.accumulates or plan.criterion.scores_pruned:
        raise InvalidArgumentError(
            f"The criterion {plan.criterion.name()!r} sums over training steps or lets pruned "
            "weights grow back; a ticket is cut once after each training, for good. Use one such "
            "as 'magnitude' or 'taylor'."
        )


def _sparsities(initial: float, final: float, rounds: int) -> list[float]:
    """Return the sparsity after each round, the density shrinking by the same factor.

    Example:
        >>> _sparsities(0.0, 0.875, 3)
        [0.5, 0.75, 0.875]
    """
    if final <= initial:
        raise InvalidArgumentError(
            f"`sparsity` must be above what the model has already, {initial:g}. Received: {final!r}"
        )
    factor = (1 - final) / (1 - initial)
    between = [1 - (1 - initial) * factor ** (r / rounds) for r in range(1, rounds)]
    return [*between, final]


def _set_masks(weights: Sequence[PrunedWeight], masks: Sequence[np.ndarray]) -> None:
    for weight, mask in zip(weights, masks, strict=True):
        weight.mask.assign(mask)
        weight.apply_mask()


def _checksums(weights: Sequence[PrunedWeight]) -> list[int]:
    return [zlib.crc32(np.ascontiguousarray(weight.values()).data) for weight in weights]

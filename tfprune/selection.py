"""Which weights a pruning run takes: the registry's choice, changed by `include` and `exclude`.

A string is an exact layer name or weight path, an `re.Pattern` searches the path, a layer class
selects its instances, and a callable decides on the layer. Naming a layer takes its kernels - the
frozen and depthwise ones too -, naming a weight's path takes that very weight.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.patterns import Pattern
from tfprune.prunable import Candidate, SkipReason, find_candidates
from tfprune.pruned_weight import PrunedWeight
from tfprune.sparse_part import SparsePart

Selector = str | re.Pattern | type | Callable[[keras.layers.Layer], bool]


def select_weights(
    layer: keras.layers.Layer,
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
    pattern: Pattern | None = None,
) -> list[Candidate]:
    """Decide on every weight of a built layer or model.

    Args:
        layer: layer or model.
        include: prune only what one of these matches; everything prunable if `None`.
        exclude: prune nothing that one of these matches.
        pattern: the sparsity pattern, which may not fit a weight, or the model.

    Returns:
        All candidates in model order; `reason` is `None` for those that are pruned.

    Raises:
        InvalidArgumentError: if a selector matches nothing, or nothing is left to prune.
        InvalidTypeError: if a selector is of another type.
        UnsupportedModelError: if the pattern has no place in the model.
    """
    included, excluded = parse_selectors("include", include), parse_selectors("exclude", exclude)
    candidates = find_candidates(layer)
    unmatched = []
    for name, selectors in (("include", included), ("exclude", excluded)):
        for selector in selectors or ():
            if not any(_matches(selector, candidate) for candidate in candidates):
                unmatched.append(f"{name}={selector!r}")
    if unmatched:
        raise InvalidArgumentError(
            f"Nothing in the model matches {', '.join(unmatched)}. A string is an exact layer name "
            "or weight path; use re.compile(...) to search paths. "
            f"Weight paths are: {_shortened([c.path for c in candidates])}"
        )
    decided = [
        dataclasses.replace(c, reason=_decide(c, included, excluded, pattern)) for c in candidates
    ]
    _check_any(layer, decided)
    if pattern is not None and pattern.whole_model:
        findings = pattern.survey(layer, candidates)
        decided = [_surveyed(c, findings.get(id(c.variable))) for c in decided]
        _check_any(layer, decided)
    return decided


def choose_weights(
    layer: keras.layers.Layer,
    pattern: Pattern | None = None,
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
) -> list[PrunedWeight]:
    """Return the weights to prune, with the masks that they have already.

    Args:
        layer: built layer or model.
        pattern: as in `select_weights`.
        include: as in `select_weights`.
        exclude: as in `select_weights`.

    Raises:
        InvalidArgumentError: as `select_weights`, and for weights that are NaN or infinite.
    """
    weights = [
        PrunedWeight(
            c.variable,
            c.layout,
            getattr(c.variable.constraint, "mask", None),
            c.owners,
            part=c.part,
        )
        for c in select_weights(layer, include, exclude, pattern)
        if c.reason is None
    ]
    diverged = [w.path for w in weights if not np.isfinite(_extremes(w.values())).all()]
    if diverged:
        raise InvalidArgumentError(
            f"These weights hold NaN or infinite values: {', '.join(diverged)}. "
            "Restore a checkpoint from before the training diverged."
        )
    return weights


def _extremes(values: np.ndarray) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _decide(
    candidate: Candidate,
    included: list[Selector] | None,
    excluded: list[Selector] | None,
    pattern: Pattern | None,
) -> SkipReason | None:
    reason = candidate.reason
    if reason in (SkipReason.LORA, SkipReason.QUANTIZED):
        return reason
    if any(_matches(selector, candidate) for selector in excluded or ()):
        return SkipReason.EXCLUDED
    if included is not None:
        matching = [selector for selector in included if _matches(selector, candidate)]
        if any(_names_the_weight(selector, candidate) for selector in matching):
            reason = None
        elif not matching:
            return SkipReason.NOT_INCLUDED if reason is None else reason
        elif reason is SkipReason.ON_REQUEST or (
            reason is SkipReason.FROZEN and any(isinstance(s, str | re.Pattern) for s in matching)
        ):
            reason = None
    if reason is None and pattern is not None and not pattern.prunable_size(candidate.layout):
        return SkipReason.TOO_FEW_CHANNELS
    return reason


def _surveyed(candidate: Candidate, finding: SparsePart | str | None) -> Candidate:
    """Add what the pattern found out about a weight in its model."""
    if isinstance(finding, SparsePart):
        return dataclasses.replace(candidate, part=finding)
    # Naming these would not help: the pattern's reason comes before their own.
    if finding and candidate.reason in (None, SkipReason.FROZEN, SkipReason.ON_REQUEST):
        return dataclasses.replace(candidate, reason=SkipReason.NO_GAIN, detail=finding)
    return candidate


def _check_any(layer: keras.layers.Layer, decided: list[Candidate]) -> None:
    if not any(candidate.reason is None for candidate in decided):
        reasons = sorted({c.why for c in decided}) or ["it has no weights"]
        raise InvalidArgumentError(
            f"There is nothing to prune in {layer.name!r}: {'; '.join(reasons)}."
        )


def _matches(selector: Selector, candidate: Candidate) -> bool:
    if isinstance(selector, str):
        return selector == candidate.path or any(o.name == selector for o in candidate.owners)
    if isinstance(selector, re.Pattern):
        return selector.search(candidate.path) is not None
    if isinstance(selector, type):
        return any(isinstance(owner, selector) for owner in candidate.owners)
    return bool(selector(candidate.layer))


def _names_the_weight(selector: Selector, candidate: Candidate) -> bool:
    """Whether the selector asks for this weight and not for its layer, as "dense/bias" does."""
    if isinstance(selector, str):
        return selector == candidate.path
    folder = candidate.path.rpartition("/")[0] + "/"
    return isinstance(selector, re.Pattern) and selector.search(folder) is None


def parse_selectors(
    name: str, value: Selector | Iterable[Selector] | None
) -> list[Selector] | None:
    """Return a list of selectors, `None` if there are none.

    Args:
        name: the argument's name, for the message.
        value: what the user gave for it.

    Raises:
        InvalidTypeError: for something that selects nothing.
    """
    if value is None:
        return None
    single = isinstance(value, str | re.Pattern) or callable(value)
    selectors = [value] if single else list(value) if isinstance(value, Iterable) else [value]
    for selector in selectors:
        if not (isinstance(selector, str | re.Pattern) or callable(selector)):
            raise InvalidTypeError(
                f"`{name}` takes layer names, weight paths, re.compile(...) patterns, layer "
                f"classes or callables. Received: {selector!r}"
            )
    return selectors


def _shortened(values: list[Any], limit: int = 12) -> str:
    more = f", ... ({len(values) - limit} more)" if len(values) > limit else ""
    return ", ".join(map(str, values[:limit])) + more

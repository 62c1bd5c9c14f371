"""What an artifact says of itself: the user's description, and where it comes from.

`Metadata` is what the user knows and the model does not: labels, normalization, author. The
provenance is what the export knows: the source model, what was pruned and how, and the versions.
It is recorded in every artifact, without times, so that two exports of a model are equal.

| artifact | provenance and metadata | for readers of the standard |
|---|---|---|
| TFLite | metadata entry `TFPRUNE_PROVENANCE`, JSON | `TFLITE_METADATA`, labels in `labels.txt` |
| ONNX | `metadata_props["tfprune"]`, JSON | `doc_string`, `producer_name` |
| SavedModel | `assets.extra/tfprune.json` | |
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import InvalidArgumentError, InvalidTypeError

SAVED_MODEL_FILE = Path("assets.extra", "tfprune.json")
ONNX_KEY = "tfprune"
SCHEMA_KEY = "tfprune_provenance"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Metadata:
    """What to write into the artifacts besides their provenance.

    Args:
        labels: names of the classes, in the order of the scores: a sequence of strings, or the path
            of a text file with one per line.
        normalization: `(mean, std)` that raw input values are normalized with before they are fed,
            `(value - mean) / std`; numbers, or one of each per channel. `(127.5, 127.5)` takes
            pixels to [-1, 1].
        description: what the model is for.
        author: who made it.
        license: its license, such as "Apache-2.0".

    Example:
        >>> Metadata(labels=["cat", "dog"], normalization=(127.5, 127.5)).normalization
        ((127.5,), (127.5,))
    """

    labels: Sequence[str] | str | os.PathLike | None = None
    normalization: tuple[Any, Any] | None = None
    description: str = ""
    author: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        """Read the labels, and check all fields."""
        for name in ("description", "author", "license"):
            if not isinstance(getattr(self, name), str):
                raise InvalidTypeError(
                    f"`{name}` must be a string. Received: {getattr(self, name)!r}."
                )
        if self.labels is not None:
            object.__setattr__(self, "labels", _labels(self.labels))
        if self.normalization is not None:
            object.__setattr__(self, "normalization", _normalization(self.normalization))

    def check_model(self, outputs: dict[str, np.ndarray], shapes: Sequence[tuple]) -> None:
        """Refuse labels or a normalization that do not fit a model.

        Args:
            outputs: outputs of the model by name, examples on the first axis.
            shapes: shapes of its inputs without the batch axis.

        Raises:
            InvalidArgumentError: they do not.
        """
        sizes = {name: array.shape[-1] for name, array in outputs.items() if array.ndim >= 2}
        if self.labels is not None and len(self.labels) not in sizes.values():
            raise InvalidArgumentError(
                f"`labels` must name the classes of an output of the model, whose sizes are "
                f"{sizes}. Received: {len(self.labels)} labels."
            )
        if self.normalization is None:
            return
        channels = {len(values) for values in self.normalization} - {1}
        if any(count not in {shape[-1] for shape in shapes if shape} for count in channels):
            raise InvalidArgumentError(
                "`normalization` must hold one number, or one per channel of an input; the inputs "
                f"have the shapes {[*shapes]}. Received: {self.normalization}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, as plain values."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}


def _labels(labels: Any) -> tuple[str, ...]:
    if isinstance(labels, str | os.PathLike):
        try:
            labels = Path(labels).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise InvalidArgumentError(f"Cannot read the labels in {labels}: {error}") from error
    labels = tuple(labels)
    if not labels or not all(isinstance(label, str) for label in labels):
        raise InvalidTypeError(
            f"`labels` must be strings, one per class, or the path of a file. Received: {labels!r}."
        )
    broken = [label for label in labels if not label.strip() or len(label.splitlines()) > 1]
    if broken:
        raise InvalidArgumentError(f"A label is one line that is not empty. Received: {broken!r}.")
    return labels


def _normalization(pair: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        mean, std = (tuple(map(float, np.atleast_1d(values))) for values in pair)
    except (TypeError, ValueError):
        raise InvalidTypeError(
            "`normalization` must be `(mean, std)`: two numbers, or two sequences with one number "
            f"per channel. Received: {pair!r}."
        ) from None
    if len({len(mean), len(std)} - {1}) > 1 or not np.isfinite(mean + std).all() or min(std) <= 0:
        raise InvalidArgumentError(
            "`normalization` must be `(mean, std)` of finite numbers with std above 0, and as many "
            f"of one as of the other. Received: {pair!r}."
        )
    return mean, std


def provenance(model: Any, plain: Any, metadata: Metadata | None) -> dict[str, Any]:
    """Return where artifacts of a model come from.

    Args:
        model: the model that was given to the export; with pruning wrappers, it knows its plan.
        plain: that model without them.
        metadata: the user's own.

    Returns:
        Plain values: name, versions, the plans of pruning (None if they are not known any more)
        and the fraction of zeros of each kernel that has any.
    """
    import keras
    import tensorflow as tf

    from tfprune._version import __version__
    from tfprune.prunable import SkipReason, find_candidates
    from tfprune.pruner import find_holders

    plans = [holder.plan.get_config() for holder in find_holders(model) if holder.plan is not None]
    kernels = {}
    for candidate in find_candidates(plain):
        if candidate.reason in (None, SkipReason.FROZEN, SkipReason.ON_REQUEST):
            values = np.asarray(candidate.variable)
            if zeros := values.size - int(np.count_nonzero(values)):
                kernels[candidate.path] = round(zeros / values.size, 6)
    return {
        SCHEMA_KEY: SCHEMA_VERSION,
        "model": plain.name,
        "versions": {
            "tfprune": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
        # The id of a run is random, and ties wrappers together that are gone.
        "pruning": [{k: v for k, v in plan.items() if k != "id"} for plan in plans] or None,
        "kernel_sparsity": kernels,
        "metadata": metadata.to_dict() if metadata else {},
    }


def embed(path: Path, record: dict[str, Any], metadata: Metadata | None) -> None:
    """Write the record of an artifact into it, in the way of its format.

    Args:
        path: a `.tflite` or `.onnx` file, or the folder of a SavedModel.
        record: provenance and what is known of this artifact.
        metadata: the user's own, for the readers of the standard.
    """
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    if path.suffix == ".tflite":
        from tfprune.export.tflite_metadata import embed_metadata

        path.write_bytes(embed_metadata(path.read_bytes(), text, record, metadata or Metadata()))
    elif path.suffix == ".onnx":
        _embed_in_onnx(path, text, metadata or Metadata())
    elif (path / "saved_model.pb").is_file():
        file = path / SAVED_MODEL_FILE
        file.parent.mkdir(exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")


def _embed_in_onnx(path: Path, text: str, metadata: Metadata) -> None:
    import onnx

    from tfprune._version import __version__

    model = onnx.load(path)
    model.producer_name, model.producer_version = "tfprune", __version__
    model.doc_string = metadata.description
    onnx.helper.set_model_props(model, {ONNX_KEY: text})
    path.write_bytes(model.SerializeToString(deterministic=True))

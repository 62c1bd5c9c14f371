"""`export_model`: from a Keras model to a folder of verified artifacts.

The order is the point: everything that a user can get wrong is checked first, artifacts are
written and run in a folder beside the target, and the target is replaced when all of them passed.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.errors import InvalidArgumentError, InvalidTypeError, VerificationError
from tfprune.export.atomic import REPORT_FILE, replacing
from tfprune.export.data import Samples, checked_samples, random_samples, read_arrays
from tfprune.export.exportable import plain_model
from tfprune.export.formats import Format, Source, Tolerance, resolve_formats
from tfprune.export.metadata import Metadata, embed, provenance
from tfprune.export.nm_patterns import (
    PatternShare,
    check_patterns,
    judged,
    model_kernels,
    pattern_shares,
    stored_kernels,
)
from tfprune.export.report import ExportReport, zero_fraction
from tfprune.export.runners import resolve_runtimes
from tfprune.export.signature import Signature, signature_of
from tfprune.export.trial import Trial, further_runtimes
from tfprune.export.verify import keras_outputs

if TYPE_CHECKING:
    from tfprune.prunable import Candidate

# Calibration gains nothing from more, and data may be endless.
MAX_CALIBRATION_EXAMPLES = 500
MAX_VERIFICATION_EXAMPLES = 100
RANDOM_EXAMPLES = 16
# What fewer bits per weight may change; as in the TFLite formats of the same precision.
PACKED_TOLERANCES = {"exact": None, "float16": Tolerance(1e-2), "int8": Tolerance(0.1, 0.95)}
SPARSE_RUNTIME = ("auto", "on", "off")
SEED = 0


def export_model(
    model: Any,
    directory: str | PathLike,
    formats: str | Iterable[str] = ("savedmodel", "tflite"),
    *,
    sparse_runtime: str = "auto",
    packed: bool | str = False,
    runtimes: str | Iterable[str] = "auto",
    metadata: Metadata | None = None,
    representative_data: Any = None,
    verification_data: Any = None,
    batch_size: int | None = 1,
    input_shape: Any = None,
    threads: int = 1,
    runs: int = 20,
    tolerances: Mapping[str, Tolerance] | None = None,
) -> ExportReport:
    """Write a model as artifacts, run each of them, and compare it with the Keras model.

    Pruning wrappers are stripped; the model itself is left as it is. The folder is replaced as one:
    if anything fails, or the process dies at any moment, its former content is intact, and files
    in it that no export wrote are kept in any case.

    Args:
        model: a built Keras 3 model, with or without pruning wrappers.
        directory: the folder to export to.
        formats: names of formats: `"savedmodel"`, `"tflite"`, `"tflite_float16"`,
            `"tflite_dynamic"`, `"tflite_int8"`, `"tflite_int16x8"`, `"onnx"`; or `"tflite_all"`,
            every TFLite format (the calibrated ones if there is `representative_data`), to
            compare: the report names the smallest, the smallest after gzip and the fastest.
        sparse_runtime: whether `tflite` and `tflite_float16` are sparse-encoded, and rewritten
            exactly, for XNNPACK's sparse mode, which phones and browsers have: `"auto"` where that
            makes them run sparse, and dense with the reason elsewhere; `"on"` to get an error
            instead of a dense file; `"off"` for plain files. The file `tflite_int8`, which runs
            dense, is sparse-encoded with `"auto"` where that is smaller after gzip, with `"on"`
            always, and with `"off"` never.
        packed: store the weights of the SavedModel packed, in the bytes that their zeros and
            values need; any loader makes ordinary dense variables of them. `True` or `"exact"` is
            bit for bit, `"float16"` and `"int8"` store so many bits of each value. See
            `tfprune.export.packed_savedmodel`.
        runtimes: where TFLite files are run and compared besides LiteRT on this machine: names of
            `tfprune.export.runners` ("no-avx", "arm64", "wasm"), or "all". By default sparse files
            are run on all that are installed, for only they may differ from one to the other.
        metadata: labels, normalization, author and the like, written into every artifact beside
            what is always recorded: source model, pruning, versions. See `tfprune.export.Metadata`.
        representative_data: typical inputs that `tflite_int8` and `tflite_int16x8` are calibrated
            with: an array, a list or dict of arrays for several inputs, a `tf.data.Dataset` or an
            iterable of batches (of `(x, y)`, x is taken). The first 500 examples are used.
        verification_data: inputs to compare on, likewise; the first 100 examples are used. Default
            is `representative_data`, and 16 seeded random inputs without that.
        batch_size: examples per call of an artifact. None leaves it open, which delegates on
            phones and in browsers refuse.
        input_shape: sizes for inputs that leave some open, without the batch axis: a tuple, or a
            dict by input name.
        threads: threads of the TFLite runtime. TensorFlow keeps those of the process.
        runs: timed calls per artifact.
        tolerances: by format name, to hold an artifact to another `Tolerance` than the default
            one (see `tfprune.export.verify`).

    Returns:
        The report, also written into the folder as `report.json`.

    Raises:
        InvalidArgumentError: a format or runtime is unknown, data does not fit the inputs, or a
            number is out of range.
        MissingDependencyError: a runtime that is asked for is not installed.
        InvalidTypeError: `model` is no Keras model, or data holds no arrays.
        MissingDependencyError: `"onnx"` is asked for and its packages are not installed.
        UnsupportedModelError: the model cannot be exported, or not to one of the formats.
        ArtifactError: the folder cannot be written.
        VerificationError: an artifact does not load, or does not compute what the model computes.

    Example:
        >>> import keras, tempfile
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> report = export_model(model, tempfile.mkdtemp(), "tflite")
        >>> report["tflite"].max_difference < 1e-4
        True
    """
    chosen = resolve_formats(formats, has_data=representative_data is not None)
    precision = _packing_precision(packed, chosen)
    tolerances = _checked_tolerances(tolerances, chosen)
    _check_sparse_runtime(sparse_runtime, chosen)
    asked = None if runtimes == "auto" else resolve_runtimes(runtimes)
    _check_counts(batch_size=batch_size, threads=threads, runs=runs)
    if not isinstance(metadata, Metadata | None):
        raise InvalidTypeError(
            f"`metadata` must be a `tfprune.export.Metadata`. Received: {metadata!r}."
        )
    given, model = model, plain_model(model)
    signature, representative, verification = _inputs(
        model, signature_of(model, batch_size, input_shape), representative_data, verification_data
    )
    missing = [fmt.name for fmt in chosen if fmt.needs_representative_data]
    if missing and representative is None:
        raise InvalidArgumentError(
            f"The formats {missing} are calibrated on data: pass `representative_data`, some "
            "hundred typical inputs of the model."
        )
    with replacing(directory, [REPORT_FILE, *(fmt.filename for fmt in chosen)]) as folder:
        source = Source(
            model, signature, representative, folder / ".work", precision, sparse_runtime
        )
        source.work.mkdir()
        expected = keras_outputs(model, signature, verification)
        if metadata is not None:
            metadata.check_model(expected, [spec.shape for spec in signature.specs])
        origin = provenance(given, model, metadata)
        kernels = model_kernels(model)
        artifacts, missing_runtimes = [], {}
        for fmt in chosen:
            path = folder / fmt.filename
            note = fmt.write(source, path)
            patterns = _recorded(fmt, path, kernels, origin, metadata)
            further, not_there = further_runtimes(fmt, path, asked)
            missing_runtimes |= not_there
            trial = Trial(
                fmt,
                path,
                source.signature,
                verification,
                expected,
                tolerance=tolerances.get(fmt.name) or _tolerance(fmt, precision),
                threads=threads,
                runs=runs,
            )
            artifacts.append(replace(trial.run(further, note), patterns=patterns))
        shutil.rmtree(source.work)
        report = ExportReport(
            model=model.name,
            artifacts=tuple(artifacts),
            batch_size=batch_size,
            verification=verification.description,
            representative=representative and representative.description,
            directory=fspath(directory),
            missing_runtimes=missing_runtimes,
        )
        (folder / REPORT_FILE).write_text(report.to_json(), encoding="utf-8")
    return report


def _recorded(
    fmt: Format,
    path: Path,
    kernels: "list[Candidate]",
    origin: dict[str, Any],
    metadata: Metadata | None,
) -> tuple[PatternShare, ...]:
    """Write into an artifact where it comes from, and return the N:M patterns that it has."""
    try:
        stored = judged(stored_kernels(path, [kernel.layout for kernel in kernels]))
        patterns = pattern_shares(stored)
        measured = {
            "format": fmt.name,
            "sparsity": zero_fraction(fmt.stored_weights(path)),
            "patterns": {s.pattern: f"{s.kernels}/{s.of_kernels}" for s in patterns},
        }
    except Exception as error:
        raise VerificationError(
            f"{path.name} was written and cannot be read: {error} Nothing was exported; leave "
            f"{fmt.name!r} out of `formats` to export the others."
        ) from error
    embed(path, origin | measured, metadata)
    check_patterns(path, stored, judged(k.layout.to_taps(np.asarray(k.variable)) for k in kernels))
    return patterns


def _inputs(
    model: Any, signature: Signature, representative_data: Any, verification_data: Any
) -> tuple[Signature, Samples | None, Samples]:
    """Read and check the user's data; fall back to random inputs for verification."""
    read = {}
    for argument, data, limit in (
        ("representative_data", representative_data, MAX_CALIBRATION_EXAMPLES),
        ("verification_data", verification_data, MAX_VERIFICATION_EXAMPLES),
    ):
        if data is not None:
            read[argument] = read_arrays(data, signature, limit, argument)
    if read and not getattr(model, "inputs", None):
        signature = signature.with_integer_dtypes(next(iter(read.values())))
    samples = {
        argument: checked_samples(arrays, signature, argument) for argument, arrays in read.items()
    }
    representative = samples.get("representative_data")
    verification = samples.get("verification_data")
    if verification is None and representative is not None:
        verification = representative.first(MAX_VERIFICATION_EXAMPLES)
    if verification is None:
        verification = random_samples(model, signature, RANDOM_EXAMPLES, SEED)
    return signature, representative, verification


def _packing_precision(packed: bool | str, chosen: list[Format]) -> str | None:
    if packed is False:
        return None
    if "savedmodel" not in [fmt.name for fmt in chosen]:
        raise InvalidArgumentError(
            "`packed` is about the format 'savedmodel', which `formats` does not name."
        )
    precision = "exact" if packed is True else packed
    if precision not in PACKED_TOLERANCES:
        raise InvalidArgumentError(
            f"`packed` must be False, True or one of {list(PACKED_TOLERANCES)}. "
            f"Received: {packed!r}."
        )
    return precision


def _check_sparse_runtime(sparse_runtime: str, chosen: list[Format]) -> None:
    if sparse_runtime not in SPARSE_RUNTIME:
        raise InvalidArgumentError(
            f"`sparse_runtime` must be one of {SPARSE_RUNTIME}. Received: {sparse_runtime!r}."
        )
    formats = ("tflite", "tflite_float16", "tflite_int8")
    if sparse_runtime == "on" and not {*formats} & {fmt.name for fmt in chosen}:
        raise InvalidArgumentError(
            f"`sparse_runtime` is about the formats {formats}, none of which `formats` names."
        )


def _tolerance(fmt: Format, precision: str | None) -> Tolerance:
    if fmt.name == "savedmodel" and precision is not None:
        return PACKED_TOLERANCES[precision] or fmt.tolerance
    return fmt.tolerance


def _checked_tolerances(
    tolerances: Mapping[str, Tolerance] | None, chosen: list[Format]
) -> Mapping[str, Tolerance]:
    tolerances = tolerances or {}
    unknown = sorted(set(tolerances) - {fmt.name for fmt in chosen})
    if unknown:
        raise InvalidArgumentError(f"`tolerances` names {unknown}, which `formats` does not.")
    wrong = [value for value in tolerances.values() if not isinstance(value, Tolerance)]
    if wrong:
        raise InvalidTypeError(
            f"`tolerances` must hold `tfprune.export.Tolerance`. Received: {wrong!r}."
        )
    return tolerances


def _check_counts(batch_size: int | None, threads: int, runs: int) -> None:
    counts = {"threads": threads, "runs": runs}
    if batch_size is not None:
        counts["batch_size"] = batch_size
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidArgumentError(
                f"`{name}` must be an integer of at least 1. Received: {value!r}."
            )

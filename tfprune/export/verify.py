"""Verification: an artifact must compute what the Keras model computes.

The difference of an output is measured against its largest absolute value over all verification
inputs. For outputs that look like class scores (rank 2, at least two units, floating point) the
largest class is compared too. On inputs where the Keras model itself hardly prefers a class, any
rounding may change the largest one; so the check counts only *clear-cut* inputs, where the two
best scores are at least a tenth of that largest absolute value apart. The agreement over all
inputs is reported beside it.

| format | max difference | agreement on clear-cut inputs |
|---|---|---|
| savedmodel, tflite | 1e-4 | - |
| tflite_float16 | 1e-2 | - |
| tflite_dynamic, tflite_int16x8 | 0.1 | 0.95 |
| tflite_int8 | 0.3 | 0.95 |

They are at least five times what was measured on a trained classifier of digits, an unrolled LSTM,
MobileNetV2 and ResNet50 (at most 8e-7, 2e-3, 0.02 and 0.03 from top to bottom), and far below 1,
the difference of an artifact that computes only zeros.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.errors import UnsupportedModelError, VerificationError
from tfprune.export.data import Samples
from tfprune.export.formats import Format, Tolerance
from tfprune.export.runners import Runner
from tfprune.export.signature import Signature

CLEAR_MARGIN = 0.1

# Examples per call of the Keras model, and of artifacts that leave the batch size open.
OPEN_BATCH = 8


@dataclass(frozen=True)
class Comparison:
    """How far an artifact is from the Keras model.

    Args:
        max_difference: see `Tolerance.max_difference`; of the worst output.
        output: the name of that output.
        agreement: fraction of inputs with the same largest class; None without class scores.
        clear_agreement: the same over clear-cut inputs; None if there are none.
        clear_inputs: number of clear-cut inputs.
    """

    max_difference: float
    output: str
    agreement: float | None = None
    clear_agreement: float | None = None
    clear_inputs: int = 0


def keras_outputs(model: Any, signature: Signature, samples: Samples) -> dict[str, np.ndarray]:
    """Compute what artifacts are compared with.

    Args:
        model: the plain Keras model.
        signature: its inputs.
        samples: the verification inputs.

    Returns:
        The outputs by the names that they have in artifacts.

    Raises:
        UnsupportedModelError: the model cannot be run on the samples, or has nested outputs.
        VerificationError: the model itself computes values that are not finite.
    """

    def call(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            outputs = model(signature.pack(batch), training=False)
        except Exception as error:
            raise UnsupportedModelError(
                f"The model {model.name!r} cannot be run on {samples.description}: {error} "
                "If these are not valid inputs, pass `verification_data`."
            ) from error
        return _named(model, outputs)

    expected = _collect(call, samples, signature.batch_size or OPEN_BATCH)
    broken = [name for name, array in expected.items() if not _finite(array)]
    if broken:
        raise VerificationError(
            f"The Keras model itself computes NaN or infinite values for {', '.join(broken)} on "
            f"{samples.description}. Pass `verification_data` that the model is meant for, or "
            "check its weights."
        )
    return expected


def artifact_outputs(runner: Runner, signature: Signature, samples: Samples) -> dict:
    """Compute the outputs of an artifact on the same samples."""
    return _collect(runner.run, samples, signature.batch_size or OPEN_BATCH)


def compare(
    expected: dict[str, np.ndarray], actual: dict[str, np.ndarray], artifact: str = "The artifact"
) -> Comparison:
    """Compare outputs of an artifact with those of the Keras model.

    Args:
        expected: outputs of the Keras model by name, examples on the first axis.
        actual: outputs of the artifact.
        artifact: its name, for errors.

    Returns:
        The comparison; a difference of `inf` stands for values that are not finite.

    Raises:
        VerificationError: the outputs have other names or shapes.

    Example:
        >>> compare({"y": np.array([[1.0, 4.0]])}, {"y": np.array([[1.0, 3.0]])}).max_difference
        0.25
    """
    if set(expected) != set(actual):
        raise VerificationError(
            f"{artifact} has the outputs {sorted(actual)}; the Keras model has {sorted(expected)}."
        )
    differences, agreements = {}, []
    for name, reference in expected.items():
        if reference.shape != actual[name].shape:
            raise VerificationError(
                f"{artifact} gives the output {name!r} the shape {actual[name].shape}; the Keras "
                f"model gives it {reference.shape}."
            )
        differences[name] = _difference(reference, actual[name])
        if reference.ndim == 2 and reference.shape[1] >= 2 and reference.dtype.kind == "f":
            agreements.append(_agreement(reference, actual[name]))
    worst = max(differences, key=differences.__getitem__)
    return Comparison(differences[worst], worst, *min(agreements, default=(), key=_strictness))


def check(
    fmt: Format, artifact: str, comparison: Comparison, tolerance: Tolerance, samples: Samples
) -> None:
    """Raise unless an artifact is within its tolerance.

    Args:
        fmt: the format of the artifact.
        artifact: its name, and where it was run if that is not the usual runtime.
        comparison: what was measured.
        tolerance: what is allowed.
        samples: the verification inputs.

    Raises:
        VerificationError: it is not.
    """
    remedy = (
        f"Nothing was exported. Leave {fmt.name!r} out of `formats`, or allow more with "
        f"`tolerances={{{fmt.name!r}: Tolerance(...)}}` if the result is good enough for you."
    )
    if fmt.needs_representative_data:
        remedy = f"More typical `representative_data` may help. {remedy}"
    # Written so that NaN fails.
    if not comparison.max_difference <= tolerance.max_difference:
        raise VerificationError(
            f"{artifact} does not compute what the Keras model computes: its output "
            f"{comparison.output!r} differs by {comparison.max_difference:.2g} of the largest "
            f"value on {samples.description}; allowed is {tolerance.max_difference:.2g}. {remedy}"
        )
    agreement = comparison.clear_agreement
    if None not in (tolerance.min_agreement, agreement) and agreement < tolerance.min_agreement:
        raise VerificationError(
            f"{artifact} predicts the class of the Keras model on only {agreement:.1%} of "
            f"{comparison.clear_inputs} clear-cut inputs; required is "
            f"{tolerance.min_agreement:.1%}. {remedy}"
        )


def _named(model: Any, outputs: Any) -> dict[str, np.ndarray]:
    if isinstance(outputs, dict):
        named = dict(outputs)
    else:
        flat = outputs if isinstance(outputs, list | tuple) else [outputs]
        named = {f"output_{index}": output for index, output in enumerate(flat)}
    if not all(hasattr(output, "numpy") for output in named.values()):
        raise UnsupportedModelError(
            f"The outputs of the model {model.name!r} are nested: an artifact has a flat list or "
            "dict of tensors. Wrap it: keras.Model(model.inputs, keras.tree.flatten(model.output))."
        )
    return {name: _as_numpy(output) for name, output in named.items()}


def _as_numpy(output: Any) -> np.ndarray:
    import keras

    # numpy has no bfloat16 of its own, and differences of float16 overflow.
    if output.dtype.is_floating:
        output = keras.ops.cast(output, "float32")
    return output.numpy()


def _collect(call: Any, samples: Samples, size: int) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    for batch, rows in samples.batches(size):
        for name, array in call(batch).items():
            parts.setdefault(name, []).append(np.atleast_1d(array)[:rows])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _difference(expected: np.ndarray, actual: np.ndarray) -> float:
    if expected.dtype.kind != "f":
        return float(np.mean(expected != actual)) if expected.size else 0.0
    if not _finite(actual):
        return float("inf")
    largest = float(np.max(np.abs(expected), initial=0.0))
    difference = float(np.max(np.abs(expected - actual.astype("float64")), initial=0.0))
    # An output that is zero throughout has no scale of its own.
    return difference / (largest or 1.0)


def _agreement(expected: np.ndarray, actual: np.ndarray) -> tuple[float, float | None, int]:
    best = np.sort(expected, axis=1)[:, -2:]
    clear = best[:, 1] - best[:, 0] >= CLEAR_MARGIN * np.max(np.abs(expected), initial=0.0)
    same = expected.argmax(axis=1) == actual.argmax(axis=1)
    count = int(clear.sum())
    return float(same.mean()), float(same[clear].mean()) if count else None, count


def _strictness(agreement: tuple[float, float | None, int]) -> tuple[float, float]:
    overall, clear, _ = agreement
    return (1.0 if clear is None else clear), overall

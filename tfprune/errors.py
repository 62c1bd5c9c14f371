"""The exceptions that tfprune raises.

All derive from `TfpruneError`, so one `except` clause catches every refusal of this library; the
leaves also derive from the built-in exception that a Python user would expect.
"""


class TfpruneError(Exception):
    """Base class of every error raised on purpose by tfprune."""


class InvalidArgumentError(TfpruneError, ValueError):
    """An argument is outside of what is accepted; the message says what is."""


class InvalidTypeError(TfpruneError, TypeError):
    """An argument is of a type that is not accepted."""


class UnsupportedModelError(TfpruneError, ValueError):
    """The model cannot be handled this way; the message says which way works."""


class NotPrunedError(TfpruneError, ValueError):
    """The model holds no pruning masks, and the call needs them."""


class MissingDependencyError(TfpruneError, ImportError):
    """An optional package is missing; the message names the extra that installs it."""


class VerificationError(TfpruneError, RuntimeError):
    """A written artifact does not load, or does not compute what the model computes."""


class ArtifactError(TfpruneError, OSError):
    """Files could not be read or written; whatever was there before is still intact."""


def missing_dependency(package: str, extra: str, purpose: str) -> MissingDependencyError:
    """Build the error for an optional package that is not installed.

    Args:
        package: name of the missing package, as on PyPI.
        extra: name of the tfprune extra that installs it.
        purpose: what needs it, e.g. `"The demo"`.
    """
    return MissingDependencyError(
        f"{purpose} needs {package}, which is not installed. "
        f"Install it with `pip install 'tfprune[{extra}]'`."
    )

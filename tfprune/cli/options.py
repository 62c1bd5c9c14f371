"""The options that several commands share, and how their texts become values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from tfprune._version import __version__


def print_version(wanted: bool) -> None:
    """Print the version and end the command line, if that is what the user wants."""
    if wanted:
        print(f"tfprune {__version__}")
        raise typer.Exit


def _fraction(value: float) -> float:
    if not 0 <= value < 1:
        raise typer.BadParameter(
            f"expected a fraction in [0, 1): 0.8 for 80 % zeros. Received: {value:g}."
        )
    return value


def _selector(text: str) -> str | re.Pattern[str]:
    """Turn `re:PATTERN` into a pattern, and leave a name or path as it is."""
    if not text.startswith("re:"):
        return text
    try:
        return re.compile(text.removeprefix("re:"))
    except re.error as error:
        raise typer.BadParameter(f"{text!r} is not a regular expression: {error}.") from error


def sizes(text: str) -> tuple[int, ...]:
    """Turn `224,224,3` into a shape."""
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"--input-shape: expected sizes such as 224,224,3. Received: {text}."
        ) from error


def names(text: str) -> list[str]:
    """Split names with commas between them.

    Example:
        >>> names("tflite, savedmodel")
        ['tflite', 'savedmodel']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def runtimes_named(text: str) -> str | list[str]:
    """Turn `no-avx,wasm` into a list, and leave `auto` and `all` as they are."""
    return text if text in ("auto", "all") else names(text)


def selectors(
    include: list[str] | None, exclude: list[str] | None
) -> dict[str, list[str | re.Pattern[str]] | None]:
    """Turn the two options into the keyword arguments of `prune_once` and `plan`."""
    return {
        "include": [_selector(text) for text in include] if include else None,
        "exclude": [_selector(text) for text in exclude] if exclude else None,
    }


ModelPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A Keras model: .keras, .h5 or .hdf5.")
]
Sparsity = Annotated[
    float,
    typer.Option("--sparsity", "-s", callback=_fraction, help="Fraction of zeros, e.g. 0.8."),
]
Criterion = Annotated[str, typer.Option(help="What makes a weight worth keeping.")]
Pattern = Annotated[
    str,
    typer.Option(
        help="Which shapes may go: unstructured, 2:4 (2 kept of every 4), ...; xnnpack takes what "
        "makes phones and browsers faster, and nothing else."
    ),
]
Allocation = Annotated[
    str, typer.Option(help="How the target is shared between the layers: uniform, global, ...")
]
_SELECTORS = "a layer name, a weight path, or re:PATTERN to search the paths. Repeatable."
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help=f"Prune only this: {_SELECTORS}"),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help=f"Leave this dense: {_SELECTORS}"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
LayerNorm = Annotated[
    bool,
    typer.Option(
        "--allow-layer-norm",
        help="Also cut channels that a LayerNormalization computes over; its statistics change.",
    ),
]

"""`tfprune inspect`: what a model is made of, what can go, and what is in a TFLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfprune.cli.console import (
    native_chatter_dropped,
    print_json,
    print_result,
    progress_console,
    results_only,
    start_tensorflow,
)
from tfprune.cli.files import check_model_path, load_model
from tfprune.cli.options import (
    Allocation,
    Exclude,
    Include,
    Json,
    LayerNorm,
    Pattern,
    Sparsity,
    selectors,
)
from tfprune.errors import TfpruneError


def inspect(
    *,
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A Keras model (.keras, .h5 or .hdf5) or a .tflite file."
        ),
    ],
    sparsity: Sparsity = 0.8,
    pattern: Pattern = "unstructured",
    allocation: Allocation = "uniform",
    include: Include = None,
    exclude: Exclude = None,
    channels: Annotated[
        bool,
        typer.Option("--channels", help="Show instead which channels `shrink` can take away."),
    ] = False,
    allow_layer_norm: LayerNorm = False,
    as_json: Json = False,
) -> None:
    """Show what MODEL is made of, and what pruning it would touch. Nothing is changed.

    Of a .tflite file: inputs, outputs, operators, zeros and metadata, without TensorFlow.
    """
    if model.suffix == ".tflite":
        _inspect_tflite(model, as_json)
        return
    check_model_path(model)
    if channels:
        _inspect_channels(model, "allow" if allow_layer_norm else "freeze", as_json)
        return
    selected = selectors(include, exclude)
    with results_only():
        start_tensorflow()
        with progress_console.status(f"Reading {model.name}"):
            import tfprune

            loaded = load_model(model)
            profile = tfprune.profile(loaded)
            plan = refusal = None
            try:
                # The pattern xnnpack converts the model.
                with native_chatter_dropped():
                    plan = tfprune.plan(
                        loaded, sparsity, pattern=pattern, allocation=allocation, **selected
                    )
            except TfpruneError as error:
                refusal = error  # What was found out about the model is shown all the same.
    if as_json:
        found = {"profile": profile.to_dict(), "plan": plan.to_dict() if plan else None}
        print_json({"model": str(model), **found})
    else:
        from tfprune.cli.tables import plan_table, profile_table

        print_result(profile_table(profile, str(model)))
        if plan:
            print_result(plan_table(plan, "What pruning would do"))
    if refusal:
        raise refusal


def _inspect_channels(model: Path, layer_norm: str, as_json: bool) -> None:
    with results_only():
        start_tensorflow()
        with progress_console.status(f"Reading {model.name}"):
            from tfprune.structured import ChannelGraph

            graph = ChannelGraph(load_model(model), layer_norm=layer_norm)
    if as_json:
        print_json({"model": str(model), "channels": graph.to_dict()})
        return
    from tfprune.cli.tables import channel_table

    print_result(channel_table(graph))


def _inspect_tflite(path: Path, as_json: bool) -> None:
    from tfprune.export.tflite_summary import summarize

    summary = summarize(path)
    if as_json:
        print_json(summary.to_dict())
        return
    from tfprune.cli.tables import tflite_table

    print_result(tflite_table(summary))

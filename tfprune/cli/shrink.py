"""`tfprune shrink`: channels, units and heads really removed, and compared."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfprune.cli.console import (
    native_chatter_dropped,
    print_json,
    print_result,
    progress_console,
    results_only,
    start_tensorflow,
)
from tfprune.cli.files import check_model_path, check_output, load_model, save_model
from tfprune.cli.options import (
    Criterion,
    Exclude,
    Force,
    Include,
    Json,
    LayerNorm,
    ModelPath,
    selectors,
)
from tfprune.errors import TfpruneError
from tfprune.targets import Channels, Target

if TYPE_CHECKING:
    import keras


def shrink(
    *,
    model: ModelPath,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            metavar="[KIND=]AMOUNT",
            help="What remains: 0.5 (of the channels), or flops=0.5, parameters=200000, bytes=0.5.",
        ),
    ],
    criterion: Criterion = "magnitude",
    scope: Annotated[
        str, typer.Option(help="Which channels compete: local, global or isomorphic.")
    ] = "local",
    round_to: Annotated[
        int, typer.Option(min=1, help="Widths become multiples of this number.")
    ] = 1,
    max_ratio: Annotated[float, typer.Option(help="Largest fraction of a group that may go.")] = 1,
    include: Include = None,
    exclude: Exclude = None,
    allow_layer_norm: LayerNorm = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The .keras file to write.", show_default="MODEL-small.keras"
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write as JSON which channels went, to replay it."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Remove channels, units and heads from MODEL, without data or training, and write the result.

    Every node of the result is compared with MODEL before it is written.
    """
    check_model_path(model)
    wanted = parse_target(target)
    output = output or model.with_name(f"{model.stem}-small.keras")
    check_output(output, force)
    selected = selectors(include, exclude)
    with results_only():
        start_tensorflow()
        with progress_console.status(f"Shrinking {model.name}"), native_chatter_dropped():
            import tfprune
            from tfprune.structured import history_of, verify

            original = load_model(model)
            with warnings.catch_warnings(record=True) as caught:
                warnings.filterwarnings("always", category=UserWarning)
                small = tfprune.shrink(
                    original,
                    wanted,
                    criterion,
                    scope=scope,
                    round_to=round_to,
                    max_ratio=max_ratio,
                    layer_norm="allow" if allow_layer_norm else "freeze",
                    **selected,
                )
            notes = [str(warning.message) for warning in caught]
            cut = history_of(small)
            check = verify(original, small, cut)
            sizes = [_sizes(part) for part in (original, small)]
            save_model(small, output)
            if history is not None:
                cut.save(history)
    if as_json:
        before, after = sizes
        found = {"before": before, "after": after, "notes": notes, "history": cut.to_dict()}
        print_json(
            {"model": str(model), "output": str(output), "difference": check.difference, **found}
        )
        return
    from tfprune.cli.tables import comparison_table

    rows = [
        (name, _number(was), _number(sizes[1][name]), _share(sizes[1][name], was))
        for name, was in sizes[0].items()
    ]
    print_result(
        comparison_table(f"{model.name} without some channels", rows),
        "\n".join([*notes, str(check), f"Written to {output}"]),
    )


def parse_target(text: str) -> Target:
    """Turn `0.5` or `flops=0.5` into a target.

    Example:
        >>> parse_target("flops=0.5").amount, type(parse_target("0.5")).__name__
        (0.5, 'Channels')
    """
    kinds = {cls.name(): cls for cls in Target.registry.values()}
    name, _, amount = text.rpartition("=")
    kind = kinds.get(name or Channels.name())
    try:
        number = float(amount)
    except ValueError:
        kind = None
    if kind is None:
        raise typer.BadParameter(
            f"--target: expected a fraction such as 0.5, or one of {', '.join(sorted(kinds))} with "
            f"an amount, such as flops=0.5. Received: {text}."
        )
    return kind(int(number) if number >= 1 and number.is_integer() else number)


def _sizes(model: keras.Model) -> dict[str, int | None]:
    import tfprune

    try:
        macs = tfprune.profile(model, gzip=False).macs
    except TfpruneError:
        macs = None  # The model leaves its input size open.
    return {"parameters": model.count_params(), "MACs": macs}


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value:,}"


def _share(now: Any, was: Any) -> str:
    return "" if not now or not was else f"{was / now:.2f}x fewer"

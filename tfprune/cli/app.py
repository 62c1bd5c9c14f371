"""The commands. Each one checks its arguments, calls the library, and prints what came back."""

from __future__ import annotations

import re
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
from tfprune.cli.exits import VERIFICATION_FAILURE, Commands
from tfprune.cli.files import check_model_path, check_output, load_arrays, load_model, save_model
from tfprune.cli.inspect import inspect
from tfprune.cli.options import (
    Allocation,
    Criterion,
    Exclude,
    Force,
    Include,
    Json,
    ModelPath,
    Pattern,
    Sparsity,
    names,
    print_version,
    runtimes_named,
    selectors,
    sizes,
)
from tfprune.cli.shrink import shrink

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Prune Keras models, export them, and check what was exported.",
    epilog="Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, "
    "3 an exported artifact does not compute what the model computes.",
)


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=print_version, help="Print it, leave."),
    ] = False,
) -> None:
    pass


app.command()(inspect)


@app.command()
def prune(
    *,
    model: ModelPath,
    sparsity: Sparsity,
    criterion: Criterion = "magnitude",
    pattern: Pattern = "unstructured",
    allocation: Allocation = "uniform",
    include: Include = None,
    exclude: Exclude = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The .keras file to write.", show_default="MODEL-pruned.keras"
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Prune MODEL in one shot, without data or training, and write the result.

    High sparsities cost accuracy this way: there is no training in which the rest could recover.
    """
    check_model_path(model)
    output = output or model.with_name(f"{model.stem}-pruned.keras")
    check_output(output, force)
    selected = selectors(include, exclude)
    with results_only():
        start_tensorflow()
        with progress_console.status(f"Pruning {model.name}"):
            import tfprune

            loaded = load_model(model)
            with native_chatter_dropped():
                pruned = tfprune.prune_once(
                    loaded,
                    sparsity,
                    criterion=criterion,
                    pattern=pattern,
                    allocation=allocation,
                    **selected,
                )
            # The zeros that are there now, in every kernel, whichever were selected.
            kernels = tfprune.plan(pruned, "keep", include=re.compile(""))
            save_model(pruned, output)
    if as_json:
        print_json({"model": str(model), "output": str(output), "kernels": kernels.to_dict()})
        return
    from tfprune.cli.tables import plan_table

    print_result(plan_table(kernels, f"Zeros in {output.name}"), f"Written to {output}")


app.command()(shrink)


@app.command()
def export(
    *,
    model: ModelPath,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder for the artifacts.")],
    formats: Annotated[
        str,
        typer.Option(
            help="Formats with commas between them, e.g. savedmodel,tflite_int8; tflite_all for "
            "every TFLite format, to compare."
        ),
    ] = "savedmodel,tflite",
    representative_data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Typical inputs, to calibrate the integer formats with and to compare on: .npy, "
            "or .npz by input name. Without it the comparison is on random inputs.",
        ),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="Input size for a model that leaves it open, without the batch: 224,224,3.",
        ),
    ] = None,
    sparse_runtime: Annotated[
        str,
        typer.Option(
            metavar="auto|on|off",
            help="Whether TFLite files with floats are written for the sparse mode of phones and "
            "browsers: where they gain, always or not at all, or never.",
        ),
    ] = "auto",
    packed: Annotated[
        bool,
        typer.Option("--packed", help="Store the SavedModel's weights packed, bit for bit."),
    ] = False,
    runtimes: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Where TFLite files are compared too: no-avx,arm64,wasm or all. By default sparse "
            "files are on all that are installed (tfprune setup-runtime lists them).",
        ),
    ] = "auto",
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Names of the classes, one per line, to write into the artifacts."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per call.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads when timing.")] = 1,
    as_json: Json = False,
) -> None:
    """Write MODEL as SavedModel, TFLite or ONNX, run each one, and compare it with MODEL."""
    check_model_path(model)
    shape = None if input_shape is None else sizes(input_shape)
    with results_only():
        start_tensorflow()
        with progress_console.status(f"Exporting {model.name}"):
            import tfprune

            data = None if representative_data is None else load_arrays(representative_data)
            loaded = load_model(model)
            metadata = None if labels is None else tfprune.export.Metadata(labels=labels)
            with native_chatter_dropped():
                report = tfprune.export_model(
                    loaded,
                    directory,
                    formats=tuple(names(formats)),
                    sparse_runtime=sparse_runtime,
                    runtimes=runtimes_named(runtimes),
                    packed=packed,
                    metadata=metadata,
                    representative_data=data,
                    batch_size=batch_size,
                    input_shape=shape,
                    threads=threads,
                )
    if as_json:
        print_json({"model": str(model), **report.to_dict()})
        return
    from tfprune.cli.tables import export_table, runtimes_table

    print_result(*filter(None, [export_table(report), runtimes_table(report)]))


@app.command()
def check(
    *,
    path: Annotated[
        Path, typer.Argument(metavar="MODEL|FILE.tflite", help="A Keras or a TFLite file.")
    ],
    input_shape: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="Input size for a model that leaves it open, without the batch: 224,224,3.",
        ),
    ] = None,
    run: Annotated[
        bool,
        typer.Option(
            "--run", help="Also run it on every runtime that is installed, and compare the outputs."
        ),
    ] = False,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="The same, on these: no-avx, arm64, wasm, with commas between them, or all.",
        ),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.tflite",
            help="Rewrite a TFLite file so that it runs sparse and computes the same, to this.",
        ),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(metavar="COSTS.json", help="Predict with these, of `bench`, when fixing."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether phones and browsers run it in sparse mode, and what is in the way.

    A .tflite file may be of anyone's making; TensorFlow is not needed for it.
    """
    from tfprune.cli.check import check as check_path

    runtimes = runtimes_named(runtime or "auto") if run or runtime else None
    shape = None if input_shape is None else sizes(input_shape)
    if fix is not None:
        _fix(path, fix, costs)
        path = fix
    if path.suffix == ".tflite":
        with progress_console.status(f"Checking {path.name}"), native_chatter_dropped():
            report, crossed = check_path(path, shape, runtimes)
    else:
        check_model_path(path)
        with results_only():
            start_tensorflow()
            with progress_console.status(f"Converting {path.name}"), native_chatter_dropped():
                report, crossed = check_path(path, shape, runtimes)
    if as_json:
        print_json(report.to_dict() | ({"run": crossed.to_dict()} if crossed else {}))
    else:
        print_result(str(report), *([f"\n{crossed}"] if crossed else []))
    if report.traps or (crossed and not crossed.is_same):
        raise typer.Exit(VERIFICATION_FAILURE)


@app.command()
def bench(
    *,
    fit_cost_model: Annotated[
        str,
        typer.Option(
            metavar="RUNTIME",
            help="Fit what `check --fix` predicts with: wasm, arm64, no-avx or native.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="COSTS.json", help="The file to write.")
    ] = Path("costs.json"),
    as_json: Json = False,
) -> None:
    """Measure a runtime of this machine, for files that are compiled for it."""
    from dataclasses import asdict

    from tfprune.cli.bench import fit_cost_model as fit

    with progress_console.status(f"Timing {fit_cost_model}"), native_chatter_dropped():
        costs = fit(fit_cost_model)
    costs.write(output)
    if as_json:
        print_json(asdict(costs))
    else:
        units = "\n".join(f"{unit:20} {cost:10.4f} ns" for unit, cost in asdict(costs).items())
        print_result(f"{units}\n\nwritten to {output}; pass it to `tfprune check --fix`")


@app.command(name="setup-runtime")
def setup_runtime(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="[arm64|wasm]", help="Without it, all are listed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Set up a runtime that exported files are compared on, in your cache folder. No root needed.

    arm64: a Python with LiteRT for arm64, which qemu runs. wasm: LiteRT.js, which Chromium runs.
    """
    from tfprune.cli.runtimes import SETUPS, list_runtimes, set_up

    if name is not None:
        if name not in SETUPS:
            raise typer.BadParameter(f"expected one of {', '.join(SETUPS)}. Received: {name}.")
        with progress_console.status(f"Setting up {name}"):
            folder = set_up(name, progress_console.print)
        if not as_json:
            print_result(f"{name} is set up in {folder}")
    runtimes = list_runtimes()
    if as_json:
        print_json({"runtimes": runtimes})
    elif name is None:
        from tfprune.cli.tables import runtime_list

        print_result(runtime_list(runtimes))


def _fix(path: Path, target: Path, costs: Path | None) -> None:
    if path.suffix != ".tflite" or target.suffix != ".tflite":
        raise typer.BadParameter("only .tflite files can be fixed, into one.", param_hint="--fix")
    from tfprune.export.sparse_runtime import fix_file
    from tfprune.export.sparse_runtime.compiler import CostModel

    options = {} if costs is None else {"costs": CostModel.read(costs)}
    with progress_console.status(f"Compiling {path.name}"), native_chatter_dropped():
        fixed = fix_file(path, target, **options)
    progress_console.print(f"{target}: {fixed.note} (differs by {fixed.max_difference:.0e})")


@app.command()
def demo(
    *,
    data: Annotated[
        str,
        typer.Option(
            help="digits (under a minute), fashion-mnist (three minutes), or a folder with idx "
            "files or with one subfolder of images per class."
        ),
    ] = "digits",
    sparsity: Sparsity = 0.9,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Dense epochs; as many again prune.", show_default="by the size of the data"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same weights.")] = 0,
    image_size: Annotated[
        int, typer.Option(min=8, help="Pixels per side for a folder of images.")
    ] = 64,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A new folder for the files.", show_default="tfprune-demo"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a small CNN, prune it inside `model.fit`, export it, check it, compare."""
    with results_only():
        start_tensorflow()
        from tfprune.cli.demo import run_demo

        result = run_demo(
            data=data,
            sparsity=sparsity,
            epochs=epochs,
            seed=seed,
            image_size=image_size,
            directory=out,
        )
    if as_json:
        print_json(result.to_dict())
        return
    from tfprune.cli.demo_report import demo_notes, demo_table

    print_result(demo_table(result), demo_notes(result))

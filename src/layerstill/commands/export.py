"""`layerstill export`."""

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from layerstill.commands.bundled import bundled
from layerstill.commands.options import DATA, RUN, Verbosity
from layerstill.commands.push import PushOptions
from layerstill.commands.run_data import MaxLengthOrRun, RunDataOptions


class Format(str, Enum):
    """What a model is written as."""

    onnx = "onnx"


@bundled
def export(
    model: Annotated[str, typer.Argument(help="A fine-tuned model or a student: a folder or a hub id.")],
    data: RunDataOptions,
    push: PushOptions,
    verbosity: Verbosity,
    split: Annotated[
        str, typer.Option(help="Compare the files on the texts of this split.", rich_help_panel=DATA)
    ] = "dev",
    max_length: MaxLengthOrRun = None,
    output: Annotated[
        Optional[Path], typer.Option(help="Where to write; without it, `onnx` in the model's folder.")
    ] = None,
    format: Annotated[Format, typer.Option(help="Format of the files.", rich_help_panel=RUN)] = Format.onnx,
    int8: Annotated[bool, typer.Option("--int8", help="Also write a file in int8.")] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Fix the ranges of int8 activations on texts of train, instead of finding them in each text. "
            "Implies --int8.",
            rich_help_panel=RUN,
        ),
    ] = False,
    max_drop: Annotated[
        float,
        typer.Option(help="Most points of the main metric that a file may lose and still be called fit."),
    ] = 1.0,
) -> None:
    """Write a model as ONNX files that run with onnxruntime and tokenizers alone, and measure what each loses.

    The folder holds model.onnx, with --int8 model.int8.onnx, the tokenizer, and run.py, which shows how to use them.
    Every file is compared with the model in PyTorch on the texts of a split. Where int8 loses too much, the layers to
    blame stay in fp32. A file that still loses more than --max-drop is written and called unfit, and the exit status
    is 1. A run's folder knows its data, and with --push-to-hub it goes to the hub with its export in `onnx`.

    Example:
        layerstill export student --int8
    """
    verbosity.setup()
    push.check()
    from layerstill import acts
    from layerstill.acts.upload import is_run

    found = acts.export(
        model,
        data.read(model, split),
        output,
        format.value,
        int8 or calibrate,
        calibrate,
        max_drop,
        split,
        max_length,
    )
    if verbosity.json_:
        print(json.dumps(found.to_data(), indent=2))
    else:
        from layerstill.reporting.exported import print_export

        print_export(found)
    if not found.fit:
        raise typer.Exit(1)  # nothing that is not fit is uploaded
    run = Path(model)
    push.push(run if found.folder.resolve() == (run / "onnx").resolve() and is_run(run) else found.folder)

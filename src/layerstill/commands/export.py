"""`layerstill export`."""

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from layerstill.commands.bundled import bundled
from layerstill.commands.options import DATA, RUN, TASK_HELP, DataOptions, Verbosity


class Format(str, Enum):
    """What a model is written as."""

    onnx = "onnx"


@bundled
def export(
    model: Annotated[str, typer.Argument(help="A fine-tuned model or a student: a folder or a hub id.")],
    data: DataOptions,
    verbosity: Verbosity,
    task: Annotated[
        Optional[str], typer.Option(help=f"{TASK_HELP} Without it what the model is for.", rich_help_panel=DATA)
    ] = None,
    split: Annotated[str, typer.Option(help="Files are compared on its texts.", rich_help_panel=DATA)] = "dev",
    max_length: Annotated[
        Optional[int],
        typer.Option(
            min=4,
            help="Longest text in tokens; longer ones are cut. Without it as in training, else 128.",
            rich_help_panel=DATA,
        ),
    ] = None,
    output: Annotated[Optional[Path], typer.Option(help="Folder; without it `onnx` in the model's.")] = None,
    format: Annotated[Format, typer.Option(help="Kind of file.", rich_help_panel=RUN)] = Format.onnx,
    int8: Annotated[bool, typer.Option("--int8", help="Also a file in int8.")] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Fix the ranges of int8 activations on texts of train, instead of finding them in each text; with it "
            "comes --int8.",
            rich_help_panel=RUN,
        ),
    ] = False,
    max_drop: Annotated[
        float,
        typer.Option(help="Most points of the main metric that a file may lose and be fit."),
    ] = 1.0,
) -> None:
    """Write a model as ONNX files that run with onnxruntime and tokenizers alone, and measure what each loses.

    The folder holds model.onnx, with --int8 model.int8.onnx, the tokenizer, and run.py, which shows how to use them.
    Every file is compared with the model in PyTorch on the texts of a split. Where int8 loses too much, the layers to
    blame stay in fp32. A file that still loses more than --max-drop is written, named unfit, and the exit status is 1.

    Example:
        layerstill export student --int8
    """
    verbosity.setup()
    from layerstill import acts

    found = acts.export(
        model,
        _read(model, data, task, split),
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
        raise typer.Exit(1)


def _read(model: str, data: DataOptions, task: str | None, split: str) -> Any:
    """The data that were named; None where the act has to know them."""
    if data.data is None and task is None:
        return None
    if task is None:
        from layerstill.heads import head_of
        from layerstill.training.models import load_config

        head = head_of(load_config(model))
        task = "classification" if head is None else head.word
    own_file = data.data is not None and data.data.is_file() and data.dev is None and split == "dev"
    return data.read_as(task, dev=data.data if own_file else None)

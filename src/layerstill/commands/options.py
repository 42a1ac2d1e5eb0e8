"""The options that several verbs share, with the help that is shown for them."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer


class Precision(str, Enum):
    """Arithmetic of the training step."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


TASK_HELP = (
    "A GLUE task (cola sst2 mrpc stsb rte wnli qnli qqp mnli), `tickets` (the demo's data), or for your own files "
    "`classification`, `regression` (scores), `multilabel` (any number of labels a text) or `tokens` (a tag a word)."
)
DATA_HELP = (
    "A folder in the official GLUE layout; or your own train/dev/test files in a folder, or one file "
    "(.tsv .csv .jsonl .parquet; for tokens .conll and its kin). Without it a GLUE task comes from the hub."
)
DATA, RECIPE, RUN = "Data", "Recipe", "Run"
Task_ = Annotated[str, typer.Option("--task", help=TASK_HELP, rich_help_panel=DATA)]
Data = Annotated[Optional[Path], typer.Option("--data", help=DATA_HELP, rich_help_panel=DATA)]
Dev = Annotated[Optional[Path], typer.Option(help="Dev file, if --data is a single file.", rich_help_panel=DATA)]
TextColumns = Annotated[
    Optional[str],
    typer.Option(help="One or two text columns of your own files: NAME or NAME,NAME.", rich_help_panel=DATA),
]
LabelColumn = Annotated[
    str,
    typer.Option(
        help="Label column of your own files. Of several labels: a column of lists or of a|b, or A,B,C, a column of 0 "
        "and 1 for each label.",
        rich_help_panel=DATA,
    ),
]
TrainExamples = Annotated[
    Optional[int], typer.Option(min=1, help="Read only the first N training examples.", rich_help_panel=DATA)
]
FewSamples = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        help="Train on N examples drawn at random: the same ones for every --seed (`--regime seed=run` draws anew).",
        rich_help_panel=DATA,
    ),
]
LabelNoise = Annotated[
    Optional[float],
    typer.Option(
        help="Make each training label wrong with this probability, the same ones for every --seed. Give teacher and "
        "student the same regime, or the teacher none if it shall have learnt from clean labels.",
        rich_help_panel=DATA,
    ),
]
RegimeWords = Annotated[
    Optional[list[str]],
    typer.Option(
        "--regime",
        metavar="SETTING=VALUE|FILE",
        help="Anything about the training examples: `few_samples`, `stratified`, `keep.CLASS`, `long_tail`, "
        "`label_noise`, `noise=pairs`, `transitions.CLASS.CLASS`, `seed`; or a YAML file of them. Repeatable.",
        rich_help_panel=DATA,
    ),
]
Ood = Annotated[
    Optional[list[str]],
    typer.Option(
        "--ood",
        metavar="NAME=PATH|PATH",
        help="Score on an out-of-domain set, too: a known layout (hans, scitail, snli, paws, twitter-url, imdb, yelp, "
        "amazon, advglue, a GLUE task's file; `paws-wiki=...` is of layout paws), or a file of your own. Repeatable.",
        rich_help_panel=DATA,
    ),
]
OodLabels = Annotated[
    Optional[list[str]],
    typer.Option(
        "--ood-labels",
        metavar="[NAME:]LABEL=CLASS,...",
        help="What the labels of an own out-of-domain file mean: `entails=entailment,neutral=not_entailment`; with a "
        "NAME for that set only. Repeatable.",
        rich_help_panel=DATA,
    ),
]
Supplementary = Annotated[
    Optional[str],
    typer.Option(
        help="Texts for stages with `data: supplementary`: a file (.tsv .csv .jsonl .parquet, or .txt with one text a "
        "line), or `mnli=FOLDER` for the training texts of a GLUE task. Labels are dropped.",
        rich_help_panel=DATA,
    ),
]
SupplementaryColumns = Annotated[
    Optional[str],
    typer.Option(help="One or two text columns of --supplementary: NAME or NAME,NAME.", rich_help_panel=DATA),
]
MaxLength = Annotated[
    int, typer.Option(min=4, help="Longest text in tokens; longer ones are cut.", rich_help_panel=DATA)
]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe", help="A recipe by name (`layerstill recipes list`) or a YAML file.", rich_help_panel=RECIPE
    ),
]
Set = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set", help="Override anything in the recipe: `--set stages.0.epochs=3`. Repeatable.", rich_help_panel=RECIPE
    ),
]
StudentLayers = Annotated[int, typer.Option(help="Depth of the student.", rich_help_panel=RECIPE)]
Init = Annotated[
    Optional[str],
    typer.Option(
        help="Which layers start the student: first-k, last-k, every-k, random-k, random (fresh weights), or 1,3,6.",
        rich_help_panel=RECIPE,
    ),
]
InitFrom = Annotated[
    Optional[str], typer.Option(help="Cut the student from this model instead of the teacher.", rich_help_panel=RECIPE)
]
Epochs = Annotated[Optional[float], typer.Option(help="Epochs of every stage.", rich_help_panel=RUN)]
BatchSize = Annotated[
    Optional[int], typer.Option(help="Examples in an optimiser step, every stage.", rich_help_panel=RUN)
]
LearningRate = Annotated[Optional[float], typer.Option(help="Peak learning rate of every stage.", rich_help_panel=RUN)]
MaxSteps = Annotated[
    Optional[int], typer.Option(min=1, help="Stop every stage after N optimiser steps.", rich_help_panel=RUN)
]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of everything random.", rich_help_panel=RUN)]
PrecisionOption = Annotated[Precision, typer.Option(help="auto: bf16 where the hardware has it.", rich_help_panel=RUN)]
Cache = Annotated[
    str,
    typer.Option(
        help="What the teacher gives away is computed once: auto (if it pays), off, or a directory that runs share.",
        rich_help_panel=RUN,
    ),
]
CacheBudget = Annotated[
    float, typer.Option(help="Most that the teacher caches of a directory may take, in GB.", rich_help_panel=RUN)
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Run the layers through torch.compile: minutes to begin with, then faster steps on GPUs.",
        rich_help_panel=RUN,
    ),
]
ReportTo = Annotated[
    Optional[list[str]],
    typer.Option(help="Trackers of the Trainer: tensorboard, wandb, ... Repeatable.", rich_help_panel=RUN),
]
Output = Annotated[
    Path, typer.Option(help="Folder of the run: the model, and beside it result.json.", rich_help_panel=RUN)
]
Json = Annotated[bool, typer.Option("--json", help="Print result.json on standard output, and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no notes.")]

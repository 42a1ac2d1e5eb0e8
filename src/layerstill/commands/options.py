"""The options on data and runs that several verbs share, with their help, and what they are read as.

Options that belong together are a bundle, a class; a command takes bundles as parameters, and `bundled`
shows their options to typer one by one. A new option of a run is a field here, a field of `Options`, and its use.
"""

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from layerstill.commands.common import names, read_task, renamed, setup
from layerstill.commands.known import complete_task, known_task
from layerstill.errors import UserError, nearest


class Precision(str, Enum):
    """Arithmetic of the training step."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


TASK_HELP = (
    "A GLUE task (cola sst2 mrpc stsb rte wnli qnli qqp mnli), `tickets` (the demo's data), or for your own files "
    "`classification`, `regression` (scores), `multilabel` (any number of labels per text) or `tokens` (a tag "
    "per word)."
)
TEXT_HELP = "Or `text`: running text without labels (--data is a file, folder, hub:NAME or -), before there is a task."
DATA_HELP = (
    "A folder in the official GLUE layout; or your own train/dev/test files in a folder, or one file "
    "(.csv .tsv .jsonl .json .parquet .xlsx; for tokens .conll and the like). Without it, a GLUE task comes "
    "from the hub."
)
TRACKERS = ("tensorboard", "wandb", "mlflow", "comet_ml", "clearml", "neptune", "dvclive", "swanlab", "trackio")
"""Trackers that transformers knows, each the name of its package."""
DATA, RUN = "Data", "Run"
Task_ = Annotated[str, typer.Option("--task", help=TASK_HELP, autocompletion=complete_task, callback=known_task)]
Data = Annotated[Optional[Path], typer.Option("--data", help=DATA_HELP)]
Dev = Annotated[Optional[Path], typer.Option(help="Dev file, if --data is a single file.")]
TextColumns = Annotated[
    Optional[str],
    typer.Option(help="One or two text columns of your own files: NAME or NAME,NAME."),
]
LabelColumn = Annotated[
    str,
    typer.Option(
        help="Label column of your own files. For several labels: a column of lists or of a|b, or A,B,C, a "
        "column of 0 and 1 for each label. For several scores: A,B,C, a column for each.",
    ),
]
TrainExamples = Annotated[
    Optional[int], typer.Option(min=1, help="Read only the first N training examples.", rich_help_panel=DATA)
]
FewSamples = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        help="Train on N examples drawn at random: the same ones for every --seed (`--regime seed=run` draws again).",
        rich_help_panel=DATA,
    ),
]
LabelNoise = Annotated[
    Optional[float],
    typer.Option(
        help="Make each training label wrong with this probability, the same ones for every --seed. Give teacher and "
        "student the same regime, or none to a teacher that is to learn from clean labels.",
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
        help="Also score on an out-of-domain set: a known layout (hans, scitail, snli, paws, twitter-url, imdb, yelp, "
        "amazon, advglue, a GLUE task's file; `paws-wiki=...` is of layout paws), or a file of your own. Repeatable.",
        rich_help_panel=DATA,
    ),
]
OodLabels = Annotated[
    Optional[list[str]],
    typer.Option(
        "--ood-labels",
        metavar="[NAME:]LABEL=CLASS,...",
        help="What the labels of your own out-of-domain file mean, such as `entails=entailment`; with a NAME for "
        "that set only. Repeatable.",
        rich_help_panel=DATA,
    ),
]
LabelMap = Annotated[
    Optional[str],
    typer.Option(
        metavar="DATA=MODEL,...",
        help="What the data's labels are called in the model: 0=negative,1=positive.",
        rich_help_panel=DATA,
    ),
]
WeightColumn = Annotated[
    Optional[str],
    typer.Option(
        metavar="NAME",
        help="Column of your own files with the weight of each training example in the loss on labels: numbers of 0 "
        "or more. Only their proportions matter.",
        rich_help_panel=DATA,
    ),
]
ClassWeights = Annotated[
    Optional[str],
    typer.Option(
        metavar="balanced|FILE",
        help="How much each class counts in the loss on labels: `balanced`, so that rare classes count as much "
        "as frequent ones, or a JSON file with a number for each class.",
        rich_help_panel=DATA,
    ),
]
MaxLength = Annotated[int, typer.Option(min=4, help="Longest text in tokens; longer ones are cut.")]
MaxSteps = Annotated[
    Optional[int], typer.Option(min=1, help="Stop every stage after N optimiser steps.", rich_help_panel=RUN)
]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of everything random.", rich_help_panel=RUN)]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="auto: bf16 where the hardware has it, else fp32. fp16, with a scaled loss, is for GPUs without bf16.",
        rich_help_panel=RUN,
    ),
]
Cache = Annotated[
    str,
    typer.Option(
        help="Compute the teacher's outputs once and keep them: auto (if it pays), off, or a directory that "
        "runs share.",
        rich_help_panel=RUN,
    ),
]
CacheBudget = Annotated[
    float, typer.Option(help="Largest size of all teacher caches in a directory, in GB.", rich_help_panel=RUN)
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Run the layers through torch.compile: takes minutes at first, then steps on GPUs are faster.",
        rich_help_panel=RUN,
    ),
]
ReportTo = Annotated[
    Optional[list[str]],
    typer.Option(help="Experiment trackers: tensorboard, wandb, ... Repeatable.", rich_help_panel=RUN),
]
Output = Annotated[Path, typer.Option(help="Folder of the run: the model, and beside it result.json.")]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON on standard output, and nothing else.", rich_help_panel=RUN),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print neither progress nor notes.", rich_help_panel=RUN)]

FineTuned = Annotated[str, typer.Argument(help="A fine-tuned model: a folder or a hub id.")]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which data, of a task that is said elsewhere."""

    data: Data = None
    dev: Dev = None
    text_columns: TextColumns = None
    label_column: LabelColumn = "label"

    def read_as(
        self, task: str, train_examples: int | None = None, dev: Path | None = None, weights: str | None = None
    ) -> Any:
        """The data as the task of this name; `dev` in place of the option, `weights` a column of train."""
        columns = self.text_columns, self.label_column
        return read_task(task, self.data, dev or self.dev, *columns, train_examples, weights)


@dataclass(frozen=True, kw_only=True)
class TaskOptions(DataOptions):
    """What is to be learnt, and from which data."""

    task: Task_
    label_map: LabelMap = None
    weight_column: WeightColumn = None

    def read(self, train_examples: int | None = None, dev: Path | None = None) -> Any:
        """The task; `dev` in place of the option."""
        return renamed(self.read_as(self.task, train_examples, dev, self.weight_column), self.label_map)


@dataclass(frozen=True)
class RegimeOptions:
    """Which of the training examples, and what is done to them."""

    train_examples: TrainExamples = None
    few_samples: FewSamples = None
    label_noise: LabelNoise = None
    regime: RegimeWords = None
    class_weights: ClassWeights = None

    def read(self, options: TaskOptions, seed: int) -> Any:
        """The task in this regime."""
        task = self._in_regime(options.read(self.train_examples), seed)
        if self.class_weights is None:
            return task
        from layerstill.data.class_weights import with_class_weights

        return with_class_weights(task, self.class_weights)

    def _in_regime(self, task: Any, seed: int) -> Any:
        given = {"few_samples": self.few_samples, "label_noise": self.label_noise}
        given = {name: value for name, value in given.items() if value is not None}
        if not given and not self.regime:
            return task
        from layerstill.data.regimes import Regime
        from layerstill.yaml_files import read_settings

        data = read_settings(list(self.regime or ()), "--regime", "regime")
        for name, value in given.items():
            if data.setdefault(name, value) != value:
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} {value}: --regime says {name} {data[name]}; give one of them")
        return Regime.from_data(data).apply(task, seed)


@dataclass(frozen=True)
class OodOptions:
    """Sets of another domain."""

    ood: Ood = None
    ood_labels: OodLabels = None

    def read(self, task: Any, data: "DataOptions") -> tuple[Any, ...]:
        """The sets with their labels; own files have the columns of the task's."""
        from layerstill.data.ood import label_maps, layout_of, read_ood, split_spec

        maps = label_maps(list(self.ood_labels or ()))
        named = [split_spec(spec)[0] for spec in self.ood or ()]
        if maps and "" in maps and all(map(layout_of, named)):
            raise UserError(
                "--ood-labels: it is for files of your own, and --ood names none; write NAME:LABEL=CLASS,..."
            )
        if unknown := [name for name in maps if name and name not in named]:
            raise UserError(
                f"--ood-labels {unknown[0]}: no --ood has this name{': ' if named else ''}{', '.join(named)}"
            )
        sets = []
        for spec, name in zip(self.ood or (), named, strict=True):
            gold = maps.get(name) or (maps.get("") if layout_of(name) is None else None)
            sets.append(read_ood(spec, task, gold, names(data.text_columns), data.label_column))
        return tuple(sets)


@dataclass(frozen=True)
class RunOptions:
    """How to run, as opposed to what."""

    max_length: MaxLength = 128
    max_steps: MaxSteps = None
    seed: Seed = 0
    precision: PrecisionOption = Precision.auto
    compile_: Compile = False
    report_to: ReportTo = None

    def read(self, quiet: bool, cache: "CacheOptions | None" = None) -> Any:
        """`Options` for the acts."""
        from layerstill.training.arguments import Options

        self._refuse_missing_trackers()
        trackers = tuple(self.report_to or ())
        options = Options(self.seed, self.max_length, self.max_steps, self.precision.value, not quiet, trackers)
        options = replace(options, compile=self.compile_)
        return options if cache is None else replace(options, cache=cache.read())

    def _refuse_missing_trackers(self) -> None:
        from transformers.integrations import get_available_reporting_integrations

        for tracker in self.report_to or ():
            if tracker not in (there := get_available_reporting_integrations()):
                if tracker in TRACKERS:
                    raise UserError(f"--report-to {tracker}: it is not installed: pip install {tracker}")
                raise UserError(
                    f"--report-to {tracker}: no such tracker: {nearest(tracker, sorted({*TRACKERS, *there}))}"
                )


@dataclass(frozen=True)
class CacheOptions:
    """Where the teacher's tensors are kept."""

    cache: Cache = "auto"
    cache_budget: CacheBudget = 4.0

    def read(self) -> Any:
        """`CacheOptions` for the acts."""
        from layerstill.training import cache_choice

        return cache_choice.CacheOptions(self.cache, self.cache_budget)


@dataclass(frozen=True)
class Verbosity:
    """What is printed."""

    json_: Json = False
    quiet: Quiet = False

    def setup(self) -> bool:
        """Prepare the libraries and the log; whether to be quiet."""
        quiet = self.quiet or self.json_
        setup(quiet)
        return quiet

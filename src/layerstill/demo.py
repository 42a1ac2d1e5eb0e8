"""The demo: a teacher for support-ticket routing, a student with half its layers, both as files, one table."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

from rich.console import Console

from layerstill.acts import distill, export, finetune
from layerstill.acts.rows import Contender, measure_rows
from layerstill.atomic import write_json
from layerstill.compression.choice import Budget, Choice, choose
from layerstill.compression.rows import Row
from layerstill.data.extra import Unlabelled, read_unlabelled
from layerstill.data.tasks import Task
from layerstill.demo_model import find_base_model
from layerstill.recipe import Recipe
from layerstill.reporting.compression import print_rows
from layerstill.training.arguments import Options

MAX_LENGTH = 96
STUDENT_LAYERS = 3
BUDGET = Budget(max_drop=3.0)

# The teacher trains briefly and its embeddings not at all, so that the demo fits into minutes.
TEACHER_SETTINGS = (
    "student.embeddings=frozen",
    "stages.0.epochs=5",
    "stages.0.batch_size=16",
    "stages.0.learning_rate=2e-4",
)
UPDATES = {"finetune": 600, "best": 1700}
"""Of each student. The control knows its 700 messages by heart after half of its own."""
# Plain fine-tuning is the control: it starts where the student starts, without a teacher.
CONTROL_SETTINGS = (
    "student.initialisation=spread",
    "student.embeddings=frozen",
    "stages.0.epochs=100",
    "stages.0.batch_size=16",
    "stages.0.learning_rate=3e-4",
)
STUDENTS = {"finetune": CONTROL_SETTINGS, "best": ()}
TAUGHT = "best"
"""The one that learns from the teacher, so that texts without labels are of use to it."""
HOW = (
    "Scores are accuracy on 240 test messages that no training saw, one seed; kept is the share of the teacher in "
    "PyTorch. Times are for one message and for batches of 32, tokenisation included, one thread, all models in turns. "
    f"`finetune` is the control: the same start without a teacher, {UPDATES['finetune']:,} updates. `best` also reads "
    f"1,600 messages without labels, which the teacher labels, and trains for {UPDATES['best']:,} updates."
)


def unlabelled_messages() -> Unlabelled:
    """Support messages that nobody has sorted, as a shop's log would have them."""
    with resources.as_file(resources.files("layerstill") / "data" / "tickets" / "unlabelled.txt") as path:
        return read_unlabelled(str(path))


def run_demo(output: Path, seed: int, progress: bool) -> tuple[list[Row], Choice]:
    """Fine-tune, distil, export, compare: a row for each model in each form. What is finished is reused."""
    options = Options(seed=seed, max_length=MAX_LENGTH, progress=progress)
    task = Task.demo()
    console = Console(stderr=True, quiet=not progress)
    console.print(f"fine-tuning the teacher on {len(task.splits['train'])} support tickets, {len(task.labels)} intents")
    teacher = output / "teacher"
    finetune(find_base_model(), task, teacher, Recipe.load("finetune", TEACHER_SETTINGS), options)
    names = {"teacher": "teacher"}
    for name, settings in STUDENTS.items():
        console.print(f"training a student of {STUDENT_LAYERS} layers with recipe {name}")
        recipe, more = Recipe.load(name, settings), unlabelled_messages() if name == TAUGHT else None
        shortened = replace(options, max_steps=UPDATES[name])
        distill(str(teacher), task, recipe, STUDENT_LAYERS, output / name, shortened, unlabelled=more)
        names[name] = f"{STUDENT_LAYERS} layers, {name}"
    console.print("writing ONNX files in 32 and in 8 bits, and comparing everything on the test messages")
    contenders = [
        Contender(
            name,
            str(output / folder),
            export(output / folder, task, int8=True, max_drop=3.0, max_length=MAX_LENGTH),
            teaches=folder == "teacher",
        )
        for folder, name in names.items()
    ]
    rows = measure_rows(contenders, task, "test", MAX_LENGTH, 1, output)
    choice = choose(rows, BUDGET, collapsed={names["finetune"]})  # the control is there to compare with
    write_json(output / "demo.json", [row.to_data() for row in rows])
    return rows, choice


def print_demo(rows: list[Row], choice: Choice) -> None:
    """The table."""
    print_rows(rows, choice, "Routing support tickets", HOW)

"""The demo: a teacher for support-ticket routing, three students with half its layers, one table."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from layerstill.acts import distill, finetune
from layerstill.atomic import write_json
from layerstill.data.tasks import Task
from layerstill.demo_model import find_base_model
from layerstill.evaluation.latency import measure_speed, torch_runner
from layerstill.evaluation.predict import predict
from layerstill.recipe import Recipe
from layerstill.training.arguments import Options
from layerstill.training.models import load_fine_tuned, load_tokenizer

MAX_LENGTH = 96
STUDENT_LAYERS = 3

# Everything else is as the recipes have it. The epochs are cut and the embeddings frozen so that the demo fits into
# minutes; students start from every second layer of the teacher.
TEACHER_SETTINGS = (
    "student.embeddings=frozen",
    "stages.0.epochs=5",
    "stages.0.batch_size=16",
    "stages.0.learning_rate=2e-4",
)
STUDENT_SETTINGS = ("student.initialisation=every-k", "student.embeddings=frozen")
ONE_STAGE = ("stages.0.epochs=4", "stages.0.batch_size=16", "stages.0.learning_rate=3e-4")
RECIPES: dict[str, tuple[str, ...]] = {
    "kd": ONE_STAGE,
    "rail-kd-l": ONE_STAGE,
    "cr-ild": (
        "stages.0.epochs=2",
        "stages.0.batch_size=16",
        "stages.0.learning_rate=3e-4",
        "stages.1.epochs=2",
        "stages.1.learning_rate=3e-4",
    ),
}


def run_demo(output: Path, seed: int, progress: bool) -> list[dict[str, Any]]:
    """Fine-tune, distil, compare; one row for the teacher and one for each recipe. What is finished is reused."""
    options = Options(seed=seed, max_length=MAX_LENGTH, progress=progress)
    task = Task.demo()
    console = Console(stderr=True, quiet=not progress)
    console.print(f"fine-tuning the teacher on {len(task.splits['train'])} support tickets, {len(task.labels)} intents")
    finetune(find_base_model(), task, output / "teacher", Recipe.load("finetune", TEACHER_SETTINGS), options)
    for name, settings in RECIPES.items():
        console.print(f"distilling a student of {STUDENT_LAYERS} layers with recipe {name}")
        recipe = Recipe.load(name, (*STUDENT_SETTINGS, *settings))
        distill(str(output / "teacher"), task, recipe, STUDENT_LAYERS, output / name, options)
    console.print("scoring the test split and timing one message at a time")
    rows = _compare(task, output)
    write_json(output / "demo.json", rows)
    return rows


def _compare(task: Task, output: Path) -> list[dict[str, Any]]:
    names = ["teacher", *RECIPES]
    models = {name: load_fine_tuned(str(output / name), task.head) for name in names}
    tokenizer = load_tokenizer(str(output / "teacher"), models["teacher"].config)
    test = task.splits["test"]
    runners = {name: torch_runner(model, tokenizer, MAX_LENGTH) for name, model in models.items()}
    speeds = measure_speed(runners, test.texts)
    logits = {name: predict(model, tokenizer, test, MAX_LENGTH, task.head) for name, model in models.items()}
    said = {name: task.head.decide(values) for name, values in logits.items()}
    return [
        {
            "recipe": name,
            "layers": models[name].config.num_hidden_layers,
            "parameters": models[name].num_parameters(),
            "test_accuracy": task.score(logits[name], task.gold("test"))["accuracy"],
            "agreement_with_teacher": float((said[name] == said["teacher"]).mean()),
            "latency_ms": speeds[name].p50_ms,
            "latency_ratio": speeds["teacher"].p50_ms / speeds[name].p50_ms,
        }
        for name in names
    ]


def print_demo(rows: list[dict[str, Any]]) -> None:
    """The table."""
    table = Table(title="Routing support tickets: scores on the test messages, one seed", title_justify="left")
    for column in ("recipe", "layers", "weights", "test accuracy", "agrees with teacher", "one message", "speed-up"):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for row in rows:
        table.add_row(
            row["recipe"],
            str(row["layers"]),
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['test_accuracy']:.1%}",
            f"{row['agreement_with_teacher']:.1%}",
            f"{row['latency_ms']:.1f} ms",
            f"{row['latency_ratio']:.2f}x",
        )
    Console().print(table)

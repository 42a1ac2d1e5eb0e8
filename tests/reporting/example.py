"""A made-up folder of runs with everything in it that a report can show."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from layerstill.data.regimes import Regime
from layerstill.data.tasks import Split, Task
from layerstill.evaluation.noise import noise_shares
from layerstill.evaluation.predictions import prediction_tensors
from layerstill.heads import Classes
from layerstill.recipe import Recipe
from layerstill.training.checkpoint import write_tensors

GAINS = {"finetune": 0.0, "kd": 0.01, "rail-kd-l": 0.02, "cr-ild": 0.05}
EXAMPLES = 200


def result(recipe: str, task: str, seed: int, score: float, **more: Any) -> dict[str, Any]:
    metric = "matthews_correlation" if task == "cola" else "accuracy"
    return {
        "recipe": recipe,
        "recipe_hash": Recipe.load(recipe).hash if recipe in GAINS else "0123456789ab",
        "teacher": None if recipe == "finetune" else "runs/teacher",
        "task": task,
        "seed": seed,
        "student": {
            "layers": 3,
            "hidden_size": 384,
            "parameters": 17_390_594,
            "init": {"layers": [1, 2, 3], "from": "teacher"},
        },
        "metrics": {metric: score, "f1": score + 0.08, "selected": "last"},
        "teacher_metrics": {} if recipe == "finetune" else {metric: 0.8064, "f1": 0.8659},
        "ood": {},
        "train": {"examples": 7336, "steps": 460, "epochs": 2.0, "seconds": 143.4, "examples_per_second": 51.1},
        "environment": {"python": "3.11.7", "torch": "2.13.0"},
    } | more


def write_run(folder: Path, data: dict[str, Any], curves: bool = True) -> Path:
    """A run folder with its records; no model."""
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(data), "utf-8")
    settings = {"task": data["task"], "seed": data["seed"], "max_length": 64, "max_steps": None, "precision": "fp32"}
    if data["teacher"]:
        settings |= {"teacher": data["teacher"], "student_layers": 3, "init_from": None}
    else:
        settings |= {"model": "some/model"}
    (folder / "run.json").write_text(json.dumps(settings), "utf-8")
    if data["recipe"] in GAINS:
        (folder / "recipe.yaml").write_text(Recipe.load(data["recipe"]).to_yaml(), "utf-8")
    if curves:
        metric = next(iter(data["metrics"]))
        lines = []
        for step in range(20, 461, 20):
            loss = 0.3 + math.exp(-step / 150) + 0.01 * data["seed"]
            lines.append({"stage": 1, "step": step, "epoch": step / 230, "loss": loss, "learning_rate": 1e-4})
            lines[-1]["objectives"] = {"task": loss, "soft targets": loss / 2}
            if step % 230 < 20:
                lines.append(
                    {"stage": 1, "step": step, "epoch": 1.0, "dev": {metric: data["metrics"][metric] - 20 / step}}
                )
                lines[-1]["dev_objectives"] = {"task": loss * 1.2, "soft targets": loss}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


def write_predictions(folder: Path, score: float, seed: int) -> None:
    """Logits that are right for a share `score` of 200 examples, the easy ones first."""
    labels = np.arange(EXAMPLES) % 2
    right = np.arange(EXAMPLES) < round(score * EXAMPLES)
    logits = np.zeros((EXAMPLES, 2), np.float32)
    logits[np.arange(EXAMPLES), np.where(right, labels, 1 - labels)] = 1 + seed
    split = Split([(f"text {i}",) for i in range(EXAMPLES)], labels.tolist())
    write_tensors(folder / "predictions.safetensors", prediction_tensors(logits, split, Classes()))


def noisy_regime(rate: float, seed: int) -> dict[str, Any]:
    """The block `regime` of a run whose data were drawn with its seed; every second wrong label is put right."""
    labels = [i % 2 for i in range(EXAMPLES)]
    split = Split([(f"text {i}",) for i in range(EXAMPLES)], labels)
    task = Regime(label_noise=rate, seed="run").apply(
        Task("mrpc", "classification", {"train": split}, ("no", "yes")), seed
    )
    noisy, clean = np.array(task.splits["train"].labels), np.array(labels)
    predicted = np.where(np.arange(EXAMPLES) % 4 < 2, noisy, clean)
    return task.regime | {"student": noise_shares(predicted, noisy, clean)}


def diagnostics(seed: int, gain: float) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    sigmas, alpha = [0, 0.01, 0.02, 0.05, 0.1], list(np.linspace(-1, 1, 11))
    noisy = [0.72 + gain - 2 * s for s in sigmas]
    loss = [0.5 + (1 - gain * 5) * a * a for a in alpha]
    return {
        "agreement": {"dev": {"teacher": 0.8 + gain, "examples": 408}},
        "gap": {"accuracy": {"train": 0.95, "dev": 0.72 + gain}},
        "weight_noise": {
            "sigmas": sigmas,
            "draws": 10,
            "metric": "accuracy",
            "train": {"mean": [n + 0.1 for n in noisy], "sd": [0.01] * 5},
            "dev": {"mean": noisy, "sd": [0.01] * 5},
        },
        "slice_1d": {"alpha": alpha, "train": loss, "dev": [v + 0.1 for v in loss]},
        "slice_2d": {"alpha": alpha, "beta": alpha, "loss": [[0.5 + a * a + b * b for b in alpha] for a in alpha]},
        "hessian": {"top_eigenvalue": 12.5 - 50 * gain, "trace": 80.0, "trace_standard_error": 4.0, "examples": 256},
        "cka": {
            "student_layers": ["embeddings", "layer 1", "layer 2", "layer 3"],
            "teacher_layers": ["embeddings", *(f"layer {i}" for i in range(1, 7))],
            "values": rng.uniform(0.2, 1, (4, 7)).tolist(),
            "examples": 256,
        },
    }


def write_example(folder: Path, seeds: int = 5, tasks: tuple[str, ...] = ("mrpc", "cola"), rich: bool = True) -> Path:
    """Four recipes on some tasks, out-of-domain scores, label noise, diagnostics, and what may go wrong."""
    for task in tasks:
        for recipe, gain in GAINS.items():
            for seed in range(seeds):
                score = 0.70 + gain + 0.005 * ((7 * seed + len(recipe)) % 5 + seed % 2)
                metric = "matthews_correlation" if task == "cola" else "accuracy"
                ood = {
                    name: {
                        "metrics": {metric: score - drop},
                        "in_domain": {metric: score},
                        "gap": {metric: drop},
                        "examples": 1000,
                        "truncated": 0,
                        "classes": ["no", "yes"],
                        "parts": {p: {"metrics": {metric: score - drop}, "examples": 9} for p in ("easy", "hard")},
                    }
                    for name, drop in (("paws", 0.2 - gain), ("hans", 0.25))
                }
                data = result(recipe, task, seed, round(score * EXAMPLES) / EXAMPLES, ood=ood if rich else {})
                place = write_run(folder / task / f"{recipe}-{seed}", data)
                if rich and task == "mrpc":
                    write_predictions(place, data["metrics"]["accuracy"], seed)
                    (place / "diagnostics.json").write_text(json.dumps(diagnostics(seed, gain)), "utf-8")
    if rich:
        for recipe, gain in GAINS.items():
            for rate in (0.1, 0.3):
                for seed in range(2):
                    score = 0.70 + gain - rate * (0.5 - 4 * gain) + 0.01 * seed * (1 + gain * 9)
                    noise = noisy_regime(rate, seed)
                    data = result(recipe, "mrpc", seed, score, regime=noise)
                    write_run(folder / "noise" / f"{recipe}-{rate}-{seed}", data, curves=False)
        teacher = result("finetune", "mrpc", 0, 0.8064, recipe_hash="4863c7182081")
        teacher["student"] = {
            "layers": 6,
            "hidden_size": 384,
            "parameters": 22_713_986,
            "init": {"layers": "all", "from": "m"},
        }
        write_run(folder / "teacher", teacher)
        (folder / "broken").mkdir()
        (folder / "broken" / "result.json").write_text('{"recipe": "kd", "tas', "utf-8")
        (folder / "begun").mkdir()
        (folder / "begun" / "run.json").write_text("{}", "utf-8")
    return folder


def write_said(folder: Path, right: np.ndarray) -> None:
    """Predictions on examples of two classes, right where `right` `(n,)` says so."""
    labels = np.arange(len(right)) % 2
    logits = np.zeros((len(right), 2), np.float32)
    logits[np.arange(len(right)), np.where(right, labels, 1 - labels)] = 1
    split = Split([(f"text {i}",) for i in range(len(right))], labels.tolist())
    write_tensors(folder / "predictions.safetensors", prediction_tensors(logits, split, Classes()))


def write_teacher(folder: Path, right: np.ndarray) -> Path:
    """A teacher's run of 6 layers, without its weights."""
    data = result("finetune", "mrpc", 0, float(right.mean()), recipe_hash="4863c7182081")
    data["student"] = {"layers": 6, "hidden_size": 384, "parameters": 22_713_986, "init": {"layers": "all"}}
    write_run(folder, data, curves=False)
    write_said(folder, right)
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 6}), "utf-8")
    return folder


def write_student(
    folder: Path, teacher: Path, right: np.ndarray, layers: int = 3, sets: tuple[str, ...] = (), **settings: Any
) -> Path:
    """A run with one seed of `kd`, or of a recipe that differs from it in `sets`."""
    recipe = Recipe.load("kd", sets)
    data = result("kd", "mrpc", 0, float(right.mean()), recipe_hash=recipe.hash, teacher=str(teacher))
    whole = json.loads((teacher / "result.json").read_text("utf-8"))
    data["teacher_metrics"] = {"accuracy": whole["metrics"]["accuracy"]}
    starts = {"layers": list(range(1, layers + 1)), "from": "teacher"}
    data["student"] |= {"layers": layers, "parameters": 12_000_000 + 1_800_000 * layers, "init": starts}
    write_run(folder, data)
    there = json.loads((folder / "run.json").read_text("utf-8"))
    told = {"recipe": recipe.model_dump(mode="json", exclude={"name"}), "student_layers": layers, **settings}
    (folder / "run.json").write_text(json.dumps(there | told), "utf-8")
    write_said(folder, right)
    return folder


def write_grid(folder: Path, examples: int = 400) -> Path:
    """A teacher and 60 students of one seed each: three sizes, five learning rates, four lengths."""
    rng = np.random.default_rng(0)
    ease = rng.random(examples)

    def right(score: float) -> np.ndarray:
        found = np.zeros(examples, bool)
        found[np.argsort(ease + 0.25 * rng.random(examples))[: round(score * examples)]] = True
        return found

    teacher = write_teacher(folder / "teacher", right(0.86))
    numbers = [(layers, rate, epochs) for layers in (2, 3, 4) for rate in RATES for epochs in (2, 4, 8, 16)]
    for number, (layers, rate, epochs) in enumerate(numbers):
        score = min(0.6 + 0.05 * layers + 0.02 * math.log2(epochs) - 0.01 * RATES.index(rate), 0.87)
        sets = (f"stages.0.learning_rate={rate}", f"stages.0.epochs={epochs}")
        place = write_student(folder / f"kd-{number:02}-0a1b2c3d", teacher, right(score), layers, sets)
        scale = 10 ** rng.uniform(-1, 1)
        lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text("utf-8").splitlines()]
        for line in lines:
            if "loss" in line:
                line["loss"] *= scale
                line["objectives"] = {"task": line["loss"], "attention": 0.02 * line["loss"], "far": 40 + line["loss"]}
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


RATES = ("2e-5", "5e-5", "1e-4", "2e-4", "3e-4")


def write_compression(folder: Path, teacher: Path, students: dict[str, Path], ship: str) -> None:
    """`compress.json` of a teacher and its students, each in three forms."""
    rows = []
    for model, place in {"teacher": teacher, **students}.items():
        score = json.loads((place / "result.json").read_text("utf-8"))["metrics"]["accuracy"]
        whole = json.loads((teacher / "result.json").read_text("utf-8"))["metrics"]["accuracy"]
        for number, form in enumerate(("torch", "onnx", "int8")):
            size = 6 if model == "teacher" else int(model[0])
            row = {
                "model": model,
                "form": form,
                "layers": size,
                "parameters": 12_000_000 + 1_800_000 * size,
                "score": score - 0.005 * (number == 2),
                "kept": 100 * (score - 0.005 * (number == 2)) / whole,
                "interval": [90.0, 101.0],
                "agreement": 1.0,
                "p50_ms": size * 2.5 / (1 + number),
                "p99_ms": size * 4.0,
                "texts_per_second": 100.0,
                "disk_mb": size * 15.0 / (1 + 3 * (number == 2)),
                "memory_mb": None,
                "fit": True,
                "teaches": model == "teacher",
                "note": "",
                "path": {"torch": str(place), "onnx": f"{place}/onnx/a.onnx", "int8": f"{place}/onnx/b.onnx"}[form],
            }
            rows.append(row)
    named = next(row["path"] for row in rows if f"{row['model']}, {row['form']}" == ship)
    record = {"task": "mrpc", "metric": "accuracy", "rows": rows, "ship": named, "verdict": [f"Ship {named}: {ship}."]}
    (folder / "compress.json").write_text(json.dumps(record), "utf-8")

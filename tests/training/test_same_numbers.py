"""The student's weights after six steps of every stage, as they were recorded: a rebuilding may not move them.

`same_numbers.json` holds them for every shipped recipe on two tiny families, and for four recipes on real data (100
support tickets, MiniLM with a random head). A machine with another processor or torch rounds otherwise: there the norms
are compared, and the hashes only where the record was made. `python -m tests.training.test_same_numbers` records anew.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, set_seed

from layerstill import Options, Recipe, Split, Task, UserError, distill, finetune
from layerstill.demo import find_base_model
from layerstill.training.cache_choice import CacheOptions
from tests.tiny import save_tiny, task_recipes, write_csv

RECORD = Path(__file__).with_name("same_numbers.json")
STEPS = 6
REAL = ("kd", "tinybert", "rail-kd-l", "cr-ild")
FAMILIES = ("bert", "llama")
Numbers = dict[str, object]


def machine() -> str:
    """What rounding depends on."""
    return f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()}"


def weights_of(folder: Path) -> Numbers:
    tensors = load_file(folder / "model.safetensors")
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    norms = [float(tensors[name].double().norm()) for name in sorted(tensors)]
    return {"hash": digest.hexdigest()[:16], "norms": [float(f"{norm:.9g}") for norm in norms]}


def trained(name: str, teacher: Path, task: Task, output: Path, cache: str) -> Numbers:
    torch.set_num_threads(1)
    options = Options(max_length=32, max_steps=STEPS, precision="fp32", progress=False, cache=CacheOptions(cache))
    settings = (f"stages.{i}.learning_rate=1e-3" for i in range(len(Recipe.load(name).stages)))
    recipe = Recipe.load(name, tuple(settings))
    try:
        if not recipe.needs_teacher:
            return weights_of(finetune(str(teacher), task, output, recipe, options).folder)
        extra = None
        if recipe.supplementary_stages:
            from layerstill import read_supplementary

            (output.parent / "texts.txt").write_text("\n".join(" ".join(t) for t in task.splits["train"].texts[::2]))
            extra = read_supplementary(str(output.parent / "texts.txt"))
        return weights_of(distill(str(teacher), task, recipe, 2, output, options, supplementary=extra).folder)
    except UserError as error:
        return {"refused": str(error).split(":")[0]}


def tiny(family: str, folder: Path) -> tuple[Path, Task]:
    for split, rows in (("train", 24), ("dev", 6)):
        write_csv(folder / f"{split}.csv", rows=rows)
    teacher = save_tiny(folder / "teacher", family, sharp=2.0, heads=6)
    return teacher, Task.from_files("classification", folder)


def real(folder: Path) -> tuple[Path, Task]:
    task = Task.demo()
    some = {s: Split(task.splits[s].texts[:n], task.splits[s].labels[:n]) for s, n in (("train", 100), ("dev", 40))}
    task = replace(task, splits=some)
    base = find_base_model()
    config = AutoConfig.from_pretrained(base, num_labels=len(task.labels))
    config.id2label = dict(enumerate(task.labels))
    config.label2id = {label: i for i, label in enumerate(task.labels)}
    set_seed(0)
    AutoModelForSequenceClassification.from_pretrained(base, config=config).save_pretrained(folder / "teacher")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "teacher")
    return folder / "teacher", task


def everything(folder: Path) -> Iterator[tuple[str, Numbers]]:
    for family in FAMILIES:
        (folder / family).mkdir()
        teacher, task = tiny(family, folder / family)
        for name in task_recipes():
            # With the cache where it would be used, so that both ways of asking the teacher are recorded.
            yield f"{name} {family}", trained(name, teacher, task, folder / family / name, "auto")
    (folder / "real").mkdir()
    teacher, task = real(folder / "real")
    for name in REAL:
        yield f"{name} tickets", trained(name, teacher, task, folder / "real" / name, "off")


@pytest.fixture(scope="module", params=["bert", pytest.param("llama", marks=pytest.mark.slow), "tickets"])
def place(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield request.param, folder, *(real(folder) if request.param == "tickets" else tiny(request.param, folder))
    torch.set_num_threads(threads)


@pytest.mark.parametrize("half", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_six_steps_end_in_the_recorded_weights(place, half):
    """Every other recipe, and the others."""
    kind, folder, teacher, task = place
    record = json.loads(RECORD.read_text("utf-8"))
    names = [key.split()[0] for key in record["weights"] if key.endswith(f" {kind}")]
    assert set(names) >= set(REAL)
    wrong = []
    for name in names[half::2]:
        told = record["weights"][f"{name} {kind}"]
        found = trained(name, teacher, task, folder / name, "off" if kind == "tickets" else "auto")
        same = found.get("refused") == told.get("refused")
        if same and "norms" in told:
            same = found["norms"] == pytest.approx(told["norms"], rel=1e-3, abs=1e-5)
            if record["machine"] == machine():
                same = same and found["hash"] == told["hash"]
        if not same:
            wrong.append(name)
    assert not wrong


def _record() -> None:
    before = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {"weights": {}}
    with tempfile.TemporaryDirectory() as folder:
        weights = dict(everything(Path(folder)))
    for key, told in weights.items():
        if before["weights"].get(key, told) != told:
            print(f"changed: {key}", file=sys.stderr)
    RECORD.write_text(json.dumps({"machine": machine(), "weights": weights}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    _record()

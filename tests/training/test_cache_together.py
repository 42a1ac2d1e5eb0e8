"""Several processes on one teacher cache at the same time: two fill it, three read it while it grows."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors.torch import save

from layerstill.data.encode import Collator, encode
from layerstill.data.tasks import Task
from layerstill.heads import Classes
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training import teacher_cache
from layerstill.training.module import DistillationModule
from layerstill.training.teacher_cache import Contents, TeacherCache
from tests.tiny import no_dropout, tiny_model, tiny_tokenizer, write_csv

CPU = torch.device("cpu")
ROWS = 72
PORTION = 9
SHARD = 4
PATIENCE = 60.0
"""Seconds after which a reader that has not seen all examples gives up."""


def module_for(recipe: str, stage: int = 0) -> DistillationModule:
    loaded = Recipe.load(recipe)
    teacher = tiny_model("bert", **no_dropout("bert"))
    torch.manual_seed(1)
    student = build_student(teacher, 2, loaded.student, seed=0)
    return DistillationModule(student, teacher, loaded.stages[stage], 0, Classes()).eval()


@pytest.fixture
def data(tmp_path):
    for split in ("train", "dev"):
        write_csv(tmp_path / f"{split}.csv", rows=ROWS)
    return encode(Task.from_files("classification", tmp_path).splits["train"], tiny_tokenizer(), 32, Classes()).dataset


def read_all(cache: TeacherCache, batch: dict) -> dict[str, torch.Tensor]:
    """Everything that a cache gives for these examples, by name."""
    captured = cache.read(batch["content"], batch["attention_mask"].bool())
    found = {f"hidden.{k}": states for k, states in captured.hidden.items()}
    for k, record in captured.attention.items():
        found |= {f"{name}.{k}": getattr(record, name) for name in ("query", "key", "value")}
    assert found
    return found


def save_slowly(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """A disk so slow that others may well look at a file half of which is written."""
    raw = save(tensors)
    with path.open("wb") as file:
        for part in (raw[: len(raw) // 2], raw[len(raw) // 2 :]):
            file.write(part)
            file.flush()
            time.sleep(0.02)


def write(folder: Path, data, portions: list[list[int]], start) -> None:
    """Fill a cache portion by portion, with a teacher that takes a while, so that writers take turns."""
    module = module_for("tinybert")

    def teacher(plan, inputs, mask):
        time.sleep(0.01)
        return module.source.ask(plan, inputs, mask)

    cache = TeacherCache(folder, "t", Contents.of(module.objectives))
    start.wait()
    for portion in portions:
        cache.fill(data.select(portion), teacher, Collator(tiny_tokenizer(), Classes()), CPU)


def read(folder: Path, data, expected: dict[int, dict], anew: bool, start, report) -> None:
    """Look again and again until everything is there: only whole shards, each with the right numbers."""
    contents = Contents.of(module_for("tinybert").objectives)
    collator = Collator(tiny_tokenizer(), Classes())
    rows = {content: i for i, content in reversed(list(enumerate(data["content"])))}
    sizes: list[int] = []
    cache = TeacherCache(folder, "t", contents)
    start.wait()
    begun = time.monotonic()
    while len(cache.places) < len(rows):
        if time.monotonic() - begun > PATIENCE:
            raise TimeoutError(f"{len(cache.places)} of {len(rows)} examples after {PATIENCE:g} seconds")
        known = set(cache.places)
        if anew:
            cache = TeacherCache(folder, "t", contents)
        else:
            cache.refresh()
        assert known <= set(cache.places), "what was there is gone"
        new = set(cache.places) - known
        if new:
            sizes.append(len(new))
        for content in new if not anew else cache.places:
            batch = collator([data[rows[content]]])
            for name, tensor in read_all(cache, batch).items():
                torch.testing.assert_close(tensor, expected[content][name], rtol=1e-4, atol=1e-4, msg=name)
    report.put(sizes)


def with_one_thread(target: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)  # a forked process has none of its parent's threads, and would wait for them
    target(*arguments)


def together(*targets: tuple[Callable, tuple]) -> None:
    """Run these in processes of their own; each must end well."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=with_one_thread, args=target, daemon=True) for target in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join(2 * PATIENCE)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_two_writers_and_three_readers_share_a_cache(data, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_cache, "SHARD_EXAMPLES", SHARD)
    monkeypatch.setattr(safetensors.torch, "save_file", save_slowly)
    module, collator = module_for("tinybert"), Collator(tiny_tokenizer(), Classes())
    contents = Contents.of(module.objectives)
    alone = TeacherCache(tmp_path / "alone", "t", contents)
    alone.fill(data, module.source.ask, collator, CPU)
    expected = {row["content"]: read_all(alone, collator([row])) for row in data}

    # Each writer fills two thirds, so that the middle one is wanted by both, from opposite ends.
    folder = tmp_path / "shared"
    portions = [list(range(i, i + PORTION)) for i in range(0, ROWS, PORTION)]
    context = multiprocessing.get_context("fork")
    start, report = context.Barrier(5), context.Queue()
    writers = [(write, (folder, data, part, start)) for part in (portions[:6], portions[:1:-1])]
    readers = [(read, (folder, data, expected, anew, start, report)) for anew in (False, False, True)]
    together(*writers, *readers)

    seen = [report.get(timeout=5) for _ in readers]
    assert all(sum(sizes) == len(expected) for sizes in seen)
    assert max(map(len, seen)) > 3, "no reader saw the cache grow, so this tested nothing"
    shards = sorted(folder.glob("teacher-*/shard-*.safetensors"))
    assert [int(path.stem[6:]) for path in shards] == list(range(len(shards)))
    whole = TeacherCache(folder, "t", contents)
    assert sum(len(shard.lengths) for shard in whole.shards) == len(expected), "an example was written twice"
    assert not list(folder.glob("teacher-*/.*")), "something half-written was left"

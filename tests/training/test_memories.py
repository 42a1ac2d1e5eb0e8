"""Training with a memory of every example: by hand, on dev, and where there can be none."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from layerstill import Options, Task, distill
from layerstill.errors import UserError
from layerstill.heads import Classes, Scores
from layerstill.heads.body import Body
from layerstill.knowledge.memory import Examples, Numbered
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training import memories
from layerstill.training.misfits import refuse_misfits
from layerstill.training.module import DistillationModule
from tests.command import status_of
from tests.tiny import EXAMPLES, batch, no_dropout, save_tiny, tiny_model, write_csv

FEWER = ("stages.0.objectives.contrast.distance={memory_nce: {negatives: 7, temperature: 0.2, momentum: 0.3}}",)
SETTINGS = {"K": 7, "temperature": 0.2, "momentum": 0.3}


def module_for(sets=FEWER, examples: Examples | None = EXAMPLES) -> DistillationModule:
    """Teacher 4 layers, student 2, no dropout, in float64."""
    recipe = Recipe.load("hid-cls-contrast", sets)
    teacher = tiny_model(sharp=2.0, **no_dropout("bert")).double()
    torch.manual_seed(1)
    student = build_student(teacher, 2, recipe.student, seed=0)
    return DistillationModule(student, teacher, recipe.stages[0], 0, Classes(), examples=examples).double().train()


def some(numbers: list[int], seed: int = 1) -> dict:
    """A batch of these examples, whose classes go round."""
    data = batch(len(numbers), lengths=[9, 4, 6, 9, 3][: len(numbers)], seed=seed)
    return data | {"id": numbers, "labels": torch.tensor([i % 3 for i in numbers])}


class Twin:
    """CRD's loss and memory in plain loops over examples, after the paper's equations; vectors come from outside."""

    def __init__(self, module: DistillationModule) -> None:
        memory = module.terms_of_stage[0].memory
        self.stored = {side: getattr(memory, side).numpy().copy() for side in ("student", "teacher")}
        self.n = len(self.stored["student"])
        self.scale: dict[str, float] = {}

    @staticmethod
    @torch.no_grad()
    def vectors(module: DistillationModule, data: dict) -> dict[str, np.ndarray]:
        """Unit vectors of both sides, by the models alone and the maps' weights."""
        found, aligner = {}, module.terms_of_stage[0].aligner
        for side, model in (("student", module.student), ("teacher", module.teacher)):
            inputs = {name: data[name] for name in ("input_ids", "attention_mask")}
            states = model(**inputs, output_hidden_states=True).hidden_states
            first = torch.cat([layer[:, 0] for layer in states], 1).numpy()
            weight, bias = (getattr(getattr(aligner, side), name)[0].numpy() for name in ("weight", "bias"))
            mapped = first @ weight.T + bias
            found[side] = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
        return found

    def loss(self, vectors: dict[str, np.ndarray], numbers: list[int] | None, drawn: list[list[int]]) -> float:
        K = len(drawn[0])
        total = 0.0
        for side, other in (("student", "teacher"), ("teacher", "student")):
            scores = []
            for row, negatives in enumerate(drawn):
                own = vectors[other][row] if numbers is None else self.stored[other][numbers[row]]
                met = [own, *(self.stored[other][j] for j in negatives)]
                scores.append([math.exp(float(vectors[side][row] @ m) / SETTINGS["temperature"]) for m in met])
            self.scale.setdefault(side, sum(map(sum, scores)) / (len(drawn) * (K + 1)) * self.n)
            for own, *others in scores:
                c = K / self.n
                p = own / self.scale[side]
                total -= math.log(p / (p + c)) / 2
                for score in others:
                    total -= math.log(c / (score / self.scale[side] + c)) / 2
        return total / len(drawn)

    def update(self, vectors: dict[str, np.ndarray], numbers: list[int]) -> None:
        for side, stored in self.stored.items():
            for row, number in enumerate(numbers):
                mixed = SETTINGS["momentum"] * stored[number] + (1 - SETTINGS["momentum"]) * vectors[side][row]
                stored[number] = mixed / math.sqrt(sum(x * x for x in mixed))


def drawn(module: DistillationModule, data: dict, step: int | None) -> list[list[int]]:
    objective = module.terms_of_stage[0]
    kinds = Classes().kinds(data["labels"].tolist())
    when = "evaluation" if step is None else step
    rows = Numbered(list(data["id"]), kinds, step)
    return objective.memory.drawn(rows, 0, "negatives", "contrast", when).tolist()


def test_four_steps_are_those_of_plain_loops():
    module = module_for()
    twin = Twin(module)
    module.freeze_unreached(some([5, 9]))
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.05)
    for step, numbers in enumerate(([0, 17, 31, 40, 63], [1, 2, 3], [17, 5, 0, 22, 9], [63, 62, 61, 17])):
        data = some(numbers, seed=step)
        vectors, others = twin.vectors(module, data), drawn(module, data, step)
        assert all(EXAMPLES.kinds[j] != i % 3 for i, row in zip(numbers, others, strict=True) for j in row)
        value = module(**data)["terms"]["contrast"].value
        assert value.item() == pytest.approx(twin.loss(vectors, numbers, others), rel=1e-5)
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        module.finish_step()
        twin.update(vectors, numbers)
        for side, stored in twin.stored.items():
            found = getattr(module.terms_of_stage[0].memory, side)
            torch.testing.assert_close(found, torch.from_numpy(stored), rtol=1e-6, atol=1e-6)


def test_an_evaluation_compares_with_the_memory_and_leaves_it():
    module = module_for()
    twin = Twin(module)
    train, dev = some([0, 17, 31, 40, 63]), some([900, 901, 902], seed=5)
    vectors, others = twin.vectors(module, train), drawn(module, train, 0)
    module(**train)
    twin.loss(vectors, [0, 17, 31, 40, 63], others)
    module.finish_step()
    twin.update(vectors, [0, 17, 31, 40, 63])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.eval()
    with torch.no_grad():
        value = module.terms(dev)[0]["contrast"].value.item()
    assert value == pytest.approx(twin.loss(twin.vectors(module, dev), None, drawn(module, dev, None)), rel=1e-5)
    module.finish_step()
    for name, kept in module.state_dict().items():
        assert torch.equal(kept, before[name]), name


def test_an_evaluation_says_the_same_in_any_batches_and_at_any_step():
    module = module_for()
    module(**some([0, 17, 31, 40, 63]))
    module.finish_step()
    dev = some([3, 4, 5, 6], seed=5)
    parts = [{n: v[rows] for n, v in dev.items()} for rows in (slice(0, 1), slice(1, 4))]
    module.eval()
    with torch.no_grad():
        whole = module.terms(dev)[0]["contrast"].value
        module.clock.step += 5
        one, three = (module.terms(part)[0]["contrast"].value for part in parts)
    torch.testing.assert_close((one + 3 * three) / 4, whole)


def test_what_is_tried_before_training_is_not_remembered():
    module = module_for()
    before = {name: value.clone() for name, value in module.state_dict().items() if ".memory." in name}
    assert len(before) == 3
    module.freeze_unreached(some([5, 9]))
    module.finish_step()
    assert all(torch.equal(module.state_dict()[name], kept) for name, kept in before.items())


def test_rows_of_another_process_are_not_remembered():
    module = module_for()
    data = some([0, 17])
    before = module.terms_of_stage[0].memory.student.clone()
    assert module(**data, idle=True)["terms"]["contrast"].value == 0
    module.finish_step()
    assert torch.equal(module.terms_of_stage[0].memory.student, before)


def test_an_average_of_the_student_keeps_no_memory_of_its_own():
    more = "stages.0.objectives.steady={signal: {hidden_states: {pool: first}}, mapping: last, distance: mse, "
    module = module_for((*FEWER, more + "target: {moving_average: {decay: 0.5}}}"))
    names = [name for name in module.state_dict() if ".memory." in name]
    assert len(names) == 3
    assert not any(name.startswith("average") for name in names)


def test_a_module_without_examples_or_a_batch_without_numbers_is_refused():
    with pytest.raises(UserError, match="'contrast' remembers every training example: give DistillationModule `exam"):
        module_for(examples=None)
    with pytest.raises(UserError, match="'contrast': its distance tells .* all 8 training examples are of one"):
        module_for(examples=Examples([1] * 8))
    data = some([0, 1])
    del data["id"]
    with pytest.raises(UserError, match="give `id`, the number of each"):
        module_for()(**data)
    with pytest.raises(UserError, match="example number 64, and the training examples are numbered from 0 to 63"):
        module_for()(**some([0, 64]))


CONTRAST = Recipe.load("hid-cls-contrast").to_data()["stages"][0]["objectives"]["contrast"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulation": 2}, "objective 'x' remembers whole steps, and accumulation splits batches"),
        ({"alignment": {"same_as": {"objective": "y"}}}, "a space of its own: memory_nce needs its own maps"),
        ({"signal": "hidden_states"}, "distance memory_nce tells the examples of a batch apart by one vector each"),
        ({"distance": {"memory_nce": {"momentum": 1}}}, "momentum"),
        ({"distance": {"memory_nce": {"negatives": 0}}}, "negatives"),
    ],
)
def test_recipes_that_a_memory_cannot_serve_are_refused(change, message):
    own = {k: v for k, v in change.items() if k != "accumulation"}
    stage = {"epochs": 1, "learning_rate": 1e-3, "objectives": {"x": {**CONTRAST, **own}, "y": CONTRAST}}
    stage |= {k: v for k, v in change.items() if k == "accumulation"}
    with pytest.raises(UserError, match=re.escape(message)):
        Recipe.from_data({"stages": [stage]})


def test_models_and_heads_that_a_memory_cannot_serve_are_refused():
    config = tiny_model().config
    with pytest.raises(UserError, match="'contrast': its distance remembers every text of a task, and running text"):
        refuse_misfits(Recipe.load("hid-cls-contrast"), config, config, 2, 0, Body())
    pairs = Recipe.load("hid-cls-contrast", ("stages.0.objectives.contrast.mapping=uniform",))
    with pytest.raises(UserError, match="'contrast': its mapping makes 2 comparisons, .* use mapping: all"):
        refuse_misfits(pairs, config, config, 2, 0, Classes())


def test_a_memory_that_does_not_fit_is_refused_in_a_line():
    config = tiny_model().config
    recipe = Recipe.load("hid-cls-contrast")
    refuse_misfits(recipe, config, config, 2, 0, Classes(), sizes={"task": 400_000})
    message = "objective 'contrast': what it remembers of 1,000,000,000,000 training examples takes 1,024,000 GB, and"
    with pytest.raises(UserError, match=re.escape(message)) as error:
        refuse_misfits(recipe, config, config, 2, 0, Classes(), sizes={"task": 10**12})
    assert "\n" not in str(error.value)


def test_classes_are_those_of_labels_that_there_are():
    assert memories.examples_of([2, 0, -100], 3, Classes()).kinds == [2, 0, None]
    assert memories.examples_of([0.5, 3.0], 2, Scores()).kinds == [None, None]
    assert memories.examples_of([], 2, Classes()).kinds == [None, None]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memories")
    save_tiny(folder / "teacher")
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", rows=30)
    write_csv(folder / "data" / "dev.csv", rows=6, seed=1)
    return folder


def words(place, verb: str, *more: str) -> list[str]:
    line = f"{verb} {place}/teacher --task classification --data {place}/data --max-length 32 --student-layers 2"
    return [*line.split(), *"--recipe hid-cls-contrast --epochs 2 --batch-size 8".split(), *more]


def test_from_the_command_line(place, tmp_path, capsys):
    assert status_of(*words(place, "plan")) == 0
    out, err = capsys.readouterr()
    assert "what is remembered of the training examples takes 30.7 kB" in " ".join(out.split())
    said = "an example is told from 20 others, not 100: no more are of another class"
    assert said in err
    assert status_of(*words(place, "distill", "--output", str(tmp_path / "s"))) == 0
    assert said in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "s" / "metrics.jsonl").read_text("utf-8").splitlines()]
    values = [line["objectives"]["contrast"] for line in lines if line["stage"] == 1 and "objectives" in line]
    assert len(values) == 8
    assert all(0 < value < 50 for value in values)


def test_texts_of_one_class_are_refused_before_anything_is_written(place, tmp_path):
    task = Task.from_files("classification", place / "data")
    train = task.splits["train"]
    one = train.take([i for i, label in enumerate(train.labels) if label == 1])
    task = replace(task, splits={**task.splits, "train": one})
    with pytest.raises(UserError, match="objective 'contrast': its distance tells .* all 10 training examples are of"):
        distill(str(place / "teacher"), task, "hid-cls-contrast", 2, tmp_path / "s", Options(max_length=32))
    assert not (tmp_path / "s").exists()


def test_without_classes_every_other_example_is_a_negative(tmp_path):
    save_tiny(tmp_path / "teacher", labels=1)
    rows = "".join(f"the {'plot was ' * (i % 5 + 1)},{i / 7}\n" for i in range(12))
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text(f"text,label\n{rows}", "utf-8")
    assert Task.from_files("regression", tmp_path).head.kinds([0.5]) == [None]
    line = f"distill {tmp_path}/teacher --task regression --data {tmp_path} --student-layers 2 --max-length 32 -q"
    line += f" --recipe hid-cls-contrast --epochs 1 --batch-size 4 --output {tmp_path}/s"
    assert status_of(*line.split(), "--set", "stages.0.evaluate=objectives") == 0
    assert "dev_objectives" in (tmp_path / "s" / "metrics.jsonl").read_text("utf-8")

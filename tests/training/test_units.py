"""Units come from the batch: padding, splits and order change no loss and no gradient, in any family, in any recipe."""

from functools import cache

import pytest
import torch
from torch.nn import functional as F

from layerstill.errors import ObjectiveError, UserError
from layerstill.families import has_windows, recorder_of, shape_of
from layerstill.heads import Classes, Scores
from layerstill.knowledge.bound_objective import BoundObjective
from layerstill.knowledge.capture import CapturePlan
from layerstill.knowledge.relate import Cosines
from layerstill.knowledge.signals import Attention, HiddenStates
from layerstill.recipe import Recipe, Stage
from layerstill.students.build import build_student
from layerstill.training.batches import share
from layerstill.training.module import DistillationModule
from tests.tiny import DECODERS, ENCODERS, EXAMPLES, FAMILIES, batch, no_dropout, task_recipes, tiny_config, tiny_model

_LOADED = [(name, i, stage) for name in task_recipes() for i, stage in enumerate(Recipe.load(name).stages)]
# Many recipes end in the same stage, which is tested once.
STAGES = list({repr(stage.viewed()): (name, i) for name, i, stage in reversed(_LOADED)}.values())
FIRST_TOKENS = {"pkd", "hid-cls", "hid-cls-contrast", "text-hid-cls"}
"""Recipes about the first token, which are refused in causal models."""
LEFT = {"roberta", "xlm-roberta", "camembert", "modernbert", "llama", "qwen3", "gemma3_text", "opt"}
"""Families that may be padded on the left: the others count positions from the edge (MPNet, where padding is not 1)."""
ROTARY = {"modernbert", "llama", "qwen3", "gemma3_text"}
WINDOWED = {"modernbert", "qwen3", "gemma3_text"}
FEWER = tuple(f"stages.0.objectives.{q}.signal.relation.heads=8" for q in ("queries", "keys", "values"))
HEADS = {"minilmv2": FEWER, "text-minilmv2": FEWER}
# Gemma's norms compute in float32 whatever the model's own precision.
TOLERANCES = {"gemma3_text": 2e-5}


@cache
def models(family: str) -> tuple:
    """A teacher of four layers and a student of two, in float64; nothing here trains them."""
    teacher = tiny_model(family, sharp=2.0, **no_dropout(family)).double()
    torch.manual_seed(1)
    student = build_student(teacher, 2, Recipe.load("kd").student, seed=0).double()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return student, teacher


def module_of(family: str, recipe: Recipe, stage: int = 0) -> DistillationModule:
    torch.manual_seed(2)
    student, teacher = models(family)
    module = DistillationModule(
        student.train(), teacher, recipe.stages[stage], 0, Classes(), examples=EXAMPLES
    ).double()
    module.clock.epoch, module.clock.epochs = 1, 2
    for o in module.terms_of_stage:
        o.to_check = 10  # every count of these few passes
    return module


def recipe_of(**objectives) -> Recipe:
    return Recipe.from_data({"stages": [{"epochs": 1, "learning_rate": 1e-3, "objectives": objectives}]})


class Values(dict):
    """The terms of a batch by name, and the gradient of their sum."""

    def __init__(self, module: DistillationModule, parts: list[dict], units=None) -> None:
        module.zero_grad()
        for part in parts:
            out = module(units=units, **part)
            out["loss"].backward()
            for name, term in out["terms"].items():
                self[name] = self.get(name, 0) + term.value.detach()
        gradients = {n: p.grad.flatten() for n, p in module.named_parameters() if p.grad is not None}
        self.names, self.gradient = set(gradients), torch.cat(list(gradients.values()))

    def assert_equals(self, other: "Values", tolerance: float) -> None:
        assert self.keys() == other.keys()
        for name, value in self.items():
            torch.testing.assert_close(
                value, other[name], rtol=tolerance, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
            )
        assert self.names == other.names
        assert (self.gradient - other.gradient).norm() <= tolerance * self.gradient.norm()


def five_rows() -> dict:
    """Rows of very unequal length, one of them without a label."""
    data = batch(5, lengths=[9, 3, 6, 8, 2])
    data["labels"][1] = -100
    return data


def pick(data: dict, rows: list[int], trim: bool) -> dict:
    part = {name: value[rows] for name, value in data.items()}
    longest = int(part["attention_mask"].sum(1).max()) if trim else None
    return {name: value[:, :longest] if value.ndim == 2 else value for name, value in part.items()}


def padded(data: dict, left: int = 0, right: int = 0) -> dict:
    return {name: F.pad(value, (left, right)) if value.ndim == 2 else value for name, value in data.items()}


def moved_to_the_right(data: dict) -> dict:
    """The same padded on the left."""
    tokens = data["attention_mask"].shape[1]
    by = (tokens - data["attention_mask"].sum(1)).tolist()
    return {
        name: torch.stack([row.roll(n) for row, n in zip(value, by, strict=True)]) if value.ndim == 2 else value
        for name, value in data.items()
    }


def may_be_padded_on_the_left(family: str, stage: Stage) -> bool:
    signals = [o.signal for o in stage.objectives.values()]
    # The heads of encoders read the first place; relation heads that part a pair of rotated dimensions see positions.
    reads_an_edge = family not in DECODERS and any(s.gold or s.of_head for s in signals)
    return family in LEFT and not reads_an_edge and not (family in ROTARY and any(s.relation_heads for s in signals))


@pytest.mark.parametrize(
    ("name", "number", "family"),
    [(*s, f) for s in STAGES for f in (ENCODERS if s[0] in FIRST_TOKENS else FAMILIES)],
)
def test_padding_splits_and_order_change_nothing(name, number, family):
    recipe, data, tolerance = Recipe.load(name, HEADS.get(name, ())), five_rows(), TOLERANCES.get(family, 1e-8)
    stage, module = recipe.stages[number], module_of(family, recipe, number)
    counts_padding = any(o.padding == "included" for o in stage.objectives.values())
    whole = Values(module, [data])
    assert whole.gradient.isfinite().all()
    if not any(o.gathers for o in stage.objectives.values()):  # those take whole steps, and gather them
        # Mirror images stay together, because mixup mixes them.
        parts = [pick(data, share(5, 2, process), trim=not counts_padding) for process in (0, 1)]
        Values(module, parts, module.count_units(data)).assert_equals(whole, tolerance)
    order = [1, 0, 2, 4, 3] if stage.mixes else [3, 0, 4, 1, 2]
    Values(module, [pick(data, order, trim=False)]).assert_equals(whole, tolerance)
    if counts_padding:
        return
    Values(module, [padded(data, right=3)]).assert_equals(whole, tolerance)
    if may_be_padded_on_the_left(family, stage):
        left = moved_to_the_right(data)
        whole = whole if not stage.mixes else Values(module, [left])  # other places meet
        # Rotary angles are float32 in every model, and these are those of other places.
        Values(module, [padded(left, left=3)]).assert_equals(whole, max(tolerance, 1e-6))


DISTANCES = {"mse": "mse", "kl": "kl", "units": "normalized_squared"}
SIGNALS = {
    "scores": {"signal": "attention"},
    "probabilities": {"signal": {"attention": {"form": "probabilities"}}},
    "values": {"signal": {"relation": {"of": "V-V", "heads": 2}}},
    "states": {"signal": "hidden_states"},
    "pooled": {"signal": {"hidden_states": {"pool": "mean"}}},
}
EVERY_COUNT = {
    f"{signal} {distance} {padding} {view}": {
        **SIGNALS[signal], "mapping": "uniform", "distance": DISTANCES[distance], "padding": padding, "view": view
    }
    for signal in SIGNALS for distance in DISTANCES for padding in ("excluded", "included") for view in ("clean", "mixup")
}  # fmt: skip
EVERY_COUNT |= {
    f"consistent {signal}": {
        **SIGNALS[signal], "mapping": "uniform", "distance": "mse", "target": "student", "view": "mixup"
    }
    for signal in SIGNALS
}  # fmt: skip
EVERY_COUNT |= {
    f"angles {distance}": {**SIGNALS["states"], "mapping": "uniform", "relate": {"angles": {"over": "tokens"}}, "distance": distance}
    for distance in ("mse", "kl")
}  # fmt: skip


@pytest.mark.parametrize("family", ["bert", "mpnet", "gpt2", *sorted(WINDOWED)])
def test_what_is_counted_beforehand_is_what_distances_count(family, monkeypatch):
    """As many for each unit, whatever the batch: so micro-batches of all kinds of padding add up."""
    each: dict[str, set[float]] = {}

    def note(self, count, units):
        assert count > 0
        each.setdefault(self.name, set()).add(float(count) / float(units))

    monkeypatch.setattr(BoundObjective, "_check_count", note)
    module, data = module_of(family, recipe_of(**EVERY_COUNT)), five_rows()
    with torch.no_grad():
        for some in (
            data,
            pick(data, [1, 3], trim=False),
            pick(data, [2], trim=True),
            pick(data, [0, 4, 1], trim=True),
        ):
            module.terms(some)
    assert each.keys() == EVERY_COUNT.keys()
    assert {name: found for name, found in each.items() if len(found) > 1} == {}


REACHES = [(family, {}) for family in FAMILIES] + [
    ("modernbert", {"local_attention": 5}),
    ("modernbert", {"local_attention": 2}),
    ("qwen3", {"sliding_window": 1}),
    ("gemma3_text", {"sliding_window": 3}),
    ("gemma3_text", {"sliding_window": 4, "use_bidirectional_attention": True}),
    ("gemma3_text", {"sliding_window": 5, "use_bidirectional_attention": True}),
]


@pytest.mark.parametrize(("family", "extra"), REACHES)
def test_attention_sees_what_the_reach_of_its_layer_says(family, extra):
    data = batch(lengths=[9, 7, 4, 1])
    model, real = tiny_model(family, **extra), data["attention_mask"].bool()
    assert has_windows(model.config) == (family in WINDOWED)
    plan = CapturePlan(attention=frozenset({1, 2, 3, 4}))
    with torch.no_grad():
        captured = recorder_of(model).run(plan, {"input_ids": data["input_ids"]}, real)
    shape, pairs = shape_of(model.config), real[:, :, None] & real[:, None, :]
    for layer, record in captured.attention.items():
        pattern, seen = shape.reach(layer).pattern(9, real.device), record.attended()
        told = pairs if pattern is None else pairs & pattern
        assert torch.equal(pairs if seen is None else pairs & seen.expand(4, -1, -1, -1)[:, 0], told), layer


def test_windows_are_tested_where_a_configuration_has_them():
    assert {family for family in FAMILIES if has_windows(tiny_config(family))} == WINDOWED


TOKENS = {"signal": "hidden_states", "mapping": "last", "distance": "mse"}


@pytest.mark.parametrize("lengths", [[9, 7, 4, 8], [8, 8, 8, 8]], ids=["unequal", "equal"])
@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        (HiddenStates, {"per": property(lambda self: "examples")}),
        (HiddenStates, {"count": lambda self, *_: torch.ones((), dtype=torch.float64)}),
        (HiddenStates, {"count": lambda self, *_: torch.zeros((), dtype=torch.float64)}),
        (Attention, {"count": lambda self, counts, places, *_: places.tokens.sum(dtype=torch.float64) ** 2}),
    ],
    ids=["examples", "batches", "nothing", "pairs across examples"],
)
def test_a_signal_that_counts_wrongly_stops_the_run_and_is_named(word, wrong, lengths, monkeypatch):
    for name, value in wrong.items():
        monkeypatch.setattr(word, name, value)
    signal = "attention" if word is Attention else "hidden_states"
    module = module_of("bert", recipe_of(task={"signal": "labels"}, lying={**TOKENS, "signal": signal}))
    with pytest.raises(
        ObjectiveError, match=r"objective 'lying': its words say that a batch has .* or distance is wrong"
    ):
        module.freeze_unreached(batch(lengths=lengths))


def test_a_relation_that_counts_wrongly_stops_the_run_and_is_named(monkeypatch):
    monkeypatch.setattr(Cosines, "count", lambda self, members, counts: members.double().sum())
    module = module_of("bert", recipe_of(lying={**TOKENS, "relate": {"cosines": {"over": "tokens"}}}))
    with pytest.raises(ObjectiveError, match="objective 'lying': its words say"):
        module.freeze_unreached(batch())


def test_counts_are_checked_in_the_first_batches_only(monkeypatch):
    module = module_of("bert", recipe_of(states=TOKENS))
    module.freeze_unreached(batch())
    monkeypatch.setattr(HiddenStates, "count", lambda self, *_: torch.ones((), dtype=torch.float64))
    module(**batch())  # reading a count would wait for the GPU at every step


WHOLE_STEPS = {
    "relates": {"signal": {"hidden_states": {"pool": "mean"}}, "mapping": "last", "relate": "angles", "distance": "huber"},
    "weighs": {**TOKENS, "mapping": "optimal_transport"},
    "counts padding": {**TOKENS, "padding": "included"},
}  # fmt: skip


@pytest.mark.parametrize("what", WHOLE_STEPS)
def test_what_takes_whole_steps_is_refused_with_accumulation(what):
    stage = {
        "epochs": 1,
        "learning_rate": 1,
        "batch_size": 8,
        "accumulation": 2,
        "objectives": {what: WHOLE_STEPS[what]},
    }
    with pytest.raises(UserError, match=rf"objective '{what}' {what}.* set accumulation: 1"):
        Recipe.from_data({"stages": [stage]})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["hid-seq", "rail-kd-l", "att-kl", "att-mse", "minilmv2", "cr-ild"])
def test_padding_takes_no_part_whatever_the_teacher_has_there(name, family, monkeypatch):
    module, data = module_of(family, Recipe.load(name, HEADS.get(name, ()))), five_rows()
    clean, read = Values(module, [data]), module.source.passes.recorder.run

    def spoilt(*args):
        captured = read(*args)
        for states in captured.hidden.values():
            states.masked_fill_(~captured.mask[..., None], float("nan"))
        for record in captured.attention.values():
            for vectors in (record.query, record.key, record.value):
                vectors.masked_fill_(~captured.mask[:, None, :, None], float("nan"))
        return captured

    monkeypatch.setattr(module.source.passes.recorder, "run", spoilt)
    Values(module, [data]).assert_equals(clean, 1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tasks_loss_without_some_labels_is_that_of_transformers(family):
    module, data = module_of(family, Recipe.load("finetune")), five_rows()
    own = module.student(**data).loss
    torch.testing.assert_close(module(**data)["terms"]["task"].value, own, rtol=1e-5, atol=0, check_dtype=False)


def test_scores_that_are_not_known_count_nowhere():
    teacher = tiny_model(labels=1, **no_dropout("bert")).double()
    student = build_student(teacher, 2, Recipe.load("finetune").student, seed=0)
    module = DistillationModule(student, None, Recipe.load("finetune").stages[0], 0, Scores()).double().train()
    data = batch()
    data["labels"] = torch.tensor([0.5, float("nan"), -100.0, 2.0], dtype=torch.float64)
    known = pick(data, [0, 2, 3], trim=False)
    Values(module, [data]).assert_equals(Values(module, [known]), 1e-12)
    parts = [pick(data, [0, 1], trim=True), pick(data, [2, 3], trim=True)]
    Values(module, parts, module.count_units(data)).assert_equals(Values(module, [data]), 1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["rail-kd-l", "att-kl", "att-mse", "cr-ild"])
def test_a_row_without_text_is_no_example(name, family):
    data = batch(4, lengths=[9, 3, 6, 8])
    if name == "cr-ild":  # in the middle, where it is its own partner
        more = {n: torch.cat([v[:2], torch.zeros_like(v[:1]), v[2:]]) for n, v in data.items()}
    else:
        more = {n: torch.cat([v, torch.zeros_like(v[:1])]) for n, v in data.items()}
    module = module_of(family, Recipe.load(name))
    whole = Values(module, [data])
    Values(module, [more]).assert_equals(whole, TOLERANCES.get(family, 1e-8))


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("distance", ["mse", "kl"])
def test_where_padding_counts_a_row_without_text_and_an_idle_batch_do_not(signal, distance):
    data = batch(4, lengths=[9, 3, 6, 8])
    included = {**SIGNALS[signal], "mapping": "uniform", "distance": distance, "padding": "included"}
    module = module_of("bert", recipe_of(included=included))
    whole = Values(module, [data])
    more = {n: torch.cat([v, torch.zeros_like(v[:1])]) for n, v in data.items()}
    Values(module, [more]).assert_equals(whole, 1e-8)
    # Another process's row, which only keeps this one in step.
    parts = [data, pick(data, [0], trim=False) | {"idle": True}]
    assert module.count_units(parts[1]).sum() == 0
    Values(module, parts, module.count_units(data)).assert_equals(whole, 1e-8)

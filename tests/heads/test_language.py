"""Language heads: which models have one, what they are asked for, and logits at the places that count only."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from layerstill.errors import UserError
from layerstill.families import recorder_of
from layerstill.heads import CausalLM, Classes, MaskedLM, language_head_of
from layerstill.heads.body import Body
from layerstill.knowledge import word_logits
from layerstill.knowledge.capture import CapturePlan
from layerstill.names import shipped_recipes
from layerstill.recipe import Recipe
from layerstill.training.clock import Clock
from layerstill.training.module import DistillationModule, bind_objectives
from tests.tiny import DECODERS, FAMILIES, batch, task_recipes, tiny_config

LABELS = {"signal": "labels", "weight": 0.5}
SOFT = {"signal": "logits", "distance": {"kl": {"temperature": 2}}, "weight": 2.0}
HIDDEN = {"signal": "hidden_states", "mapping": "last", "distance": "mse"}


def model_of(family: str, seed: int = 0, **sizes):
    torch.manual_seed(seed)
    auto = AutoModelForCausalLM if family in DECODERS else AutoModelForMaskedLM
    model = auto.from_config(tiny_config(family, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # biases too, so that no head is the same as another
    return model


def asked(family: str, rows: int = 4, tokens: int = 9, lengths=None) -> tuple[object, dict]:
    """The head of a family, and a batch in which it is asked for words."""
    given = batch(rows, tokens, lengths)
    head = CausalLM() if family in DECODERS else MaskedLM()
    hidden = None
    if head.hides:
        where = torch.rand(given["input_ids"].shape, generator=torch.Generator().manual_seed(3)) < 0.4
        hidden = torch.where(where & given["attention_mask"].bool(), given["input_ids"], -100)
        given["input_ids"] = given["input_ids"].masked_fill(hidden != -100, 4)
    return head, given | {"labels": head.asked(given, hidden)}


def stage(view: str, **objectives):
    return Recipe.from_data(
        {"stages": [{"epochs": 1, "learning_rate": 1e-4, "view": view, "objectives": objectives}]}
    ).stages[0]


def module_of(family: str, head, student, teacher, **objectives) -> DistillationModule:
    view = "masked" if head.hides else "clean"
    module = DistillationModule(student, teacher, stage(view, **objectives), 0, head)
    module.clock = Clock(epochs=1, steps=4)
    return module.train()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_the_places_asked_are_those_of_the_whole_model(family):
    model = model_of(family)
    head, given = asked(family)
    recorder = recorder_of(model)
    mask, positions = given["attention_mask"].bool(), head.positions(given)
    captured = recorder.run(
        CapturePlan(hidden=frozenset({1}), logits=True), recorder.inputs(given), mask, None, positions
    )
    whole = model(**recorder.inputs(given), attention_mask=given["attention_mask"]).logits
    assert captured.logits is None
    assert 0 < positions.sum() <= mask.sum()
    torch.testing.assert_close(captured.words.whole(), whole[positions])
    assert "forward" not in vars(recorder.body), "the body runs again"
    torch.testing.assert_close(model(**recorder.inputs(given), attention_mask=given["attention_mask"]).logits, whole)


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])
@pytest.mark.parametrize("family", ["bert", "modernbert", "llama", "opt"])
def test_terms_and_gradients_are_those_of_full_logits(family, parts, monkeypatch):
    if parts:
        monkeypatch.setattr(word_logits, "WHOLE_ELEMENTS", 0)
        monkeypatch.setattr(word_logits, "PART_ELEMENTS", 100)  # three places of 26 words
    student, teacher = model_of(family, 1, layers=2), model_of(family, 2)
    head, given = asked(family)
    module = module_of(family, head, student, teacher, words=LABELS, soft=SOFT, hidden=HIDDEN)
    student.eval()  # without dropout
    loss = module(**given)["loss"]
    found = torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)

    recorder = recorder_of(student)
    mask, positions = given["attention_mask"], head.positions(given)
    s = student(**recorder.inputs(given), attention_mask=mask, output_hidden_states=True)
    with torch.no_grad():
        t = teacher(**recorder.inputs(given), attention_mask=mask)
        target = recorder_of(teacher).run(CapturePlan(hidden=frozenset({4})), recorder.inputs(given), mask.bool())
    words = F.cross_entropy(s.logits.transpose(1, 2), given["labels"])
    soft = 4 * F.kl_div(
        (s.logits[positions] / 2).log_softmax(-1),
        (t.logits[positions] / 2).log_softmax(-1),
        log_target=True,
        reduction="batchmean",
    )
    states = recorder.run(CapturePlan(hidden=frozenset({2})), recorder.inputs(given), mask.bool()).hidden[2]
    hidden = F.mse_loss(states[mask.bool()], target.hidden[4][mask.bool()])
    slow = 0.5 * words + 2 * soft + hidden
    torch.testing.assert_close(loss, slow)
    expected = torch.autograd.grad(slow, list(student.parameters()), allow_unused=True)
    for one, two in zip(found, expected, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_recipes_of_words_train_two_steps_in_every_family(family):
    for name in set(shipped_recipes()) - set(task_recipes()):
        student, teacher = model_of(family, 1, layers=2), model_of(family, 2)
        head, given = asked(family)
        objectives = {n: o.model_dump(exclude={"view"}) for n, o in Recipe.load(name).stages[0].objectives.items()}
        module = module_of(family, head, student, teacher, **objectives)
        frozen = module.freeze_unreached(given)
        assert not [n for n in frozen if "pooler" not in n and "token_type" not in n], name
        optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.05)
        losses = []
        for _ in range(2):
            loss = module(**given)["loss"]
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            module.finish_step()
            losses.append(loss.item())
        assert losses[1] < losses[0] + 0.5, name
        assert all(p.isfinite().all() for p in student.parameters()), name


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_padding_and_splitting_a_batch_change_nothing(family):
    student, teacher = model_of(family, 1, layers=2).double(), model_of(family, 2).double()
    head, given = asked(family)
    every = SOFT | {"signal": "token_logits"}
    module = module_of(family, head, student, teacher, words=LABELS, soft=SOFT, every=every)
    student.eval()  # without dropout
    whole = module(**given)["loss"]
    grads = torch.autograd.grad(whole, list(student.parameters()), allow_unused=True)
    wider = {n: F.pad(v, (0, 5), value=-100 if n == "labels" else 0) for n, v in given.items()}
    torch.testing.assert_close(module(**wider)["loss"], whole)
    units = module.count_units(given)
    halves = [{n: v[rows] for n, v in given.items()} for rows in (slice(0, 1), slice(1, 4))]
    assert torch.equal(sum(module.count_units(half) for half in halves), units)
    parts = [module(units=units, **half)["loss"] for half in halves]
    torch.testing.assert_close(sum(parts), whole)
    for one, two in zip(
        torch.autograd.grad(sum(parts), list(student.parameters()), allow_unused=True), grads, strict=True
    ):
        torch.testing.assert_close(one, two) if one is not None else None


def test_a_batch_that_asks_for_nothing_reaches_every_weight_and_moves_none():
    student, teacher = model_of("bert", 1, layers=2), model_of("bert", 2)
    head, given = asked("bert")
    module = module_of("bert", head, student, teacher, words=LABELS, soft=SOFT)
    wanted = {
        n
        for n, p in student.named_parameters()
        if torch.autograd.grad(module(**given)["loss"], p, allow_unused=True)[0] is not None
    }
    for more in ({"labels": torch.full_like(given["labels"], -100)}, {"idle": True}):
        loss = module(**given | more)["loss"]
        assert loss.item() == 0
        names, weights = zip(*student.named_parameters(), strict=True)
        found = dict(zip(names, torch.autograd.grad(loss, weights, allow_unused=True), strict=True))
        assert {n for n, g in found.items() if g is not None} == wanted
        assert all(g is None or not g.any() for g in found.values())


def test_a_padded_vocabulary_is_compared_where_both_have_tokens():
    student, teacher = model_of("bert", 1, layers=2), model_of("bert", 2, vocab_size=32)
    head, given = asked("bert")
    module = module_of("bert", head, student, teacher, soft=SOFT)
    student.eval()
    value = module.terms(given)[0]["soft"].value
    at = head.positions(given)
    s, t = (m(given["input_ids"], attention_mask=given["attention_mask"]).logits[at] for m in (student, teacher))
    width = s.shape[-1]
    assert width < t.shape[-1]
    pair = [(x[:, :width] / 2).log_softmax(-1) for x in (s, t)]
    torch.testing.assert_close(value, 4 * F.kl_div(*pair, log_target=True, reduction="batchmean"))


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])
def test_token_logits_are_compared_at_every_token_of_the_text_with_hidden_words(parts, monkeypatch):
    if parts:
        monkeypatch.setattr(word_logits, "WHOLE_ELEMENTS", 0)
        monkeypatch.setattr(word_logits, "PART_ELEMENTS", 100)
    student, teacher = model_of("bert", 1, layers=2), model_of("bert", 2)
    head, given = asked("bert")
    everywhere = SOFT | {"signal": "token_logits"}
    module = module_of("bert", head, student, teacher, words=LABELS, soft=SOFT, every=everywhere)
    student.eval()
    found = module.terms(given)[0]
    real, at = given["attention_mask"].bool(), head.positions(given)
    assert module.count_units(given).tolist() == [at.sum(), at.sum(), real.sum()]
    s, t = (m(given["input_ids"], attention_mask=given["attention_mask"]).logits for m in (student, teacher))
    for name, where in (("soft", at), ("every", real)):
        pair = [(x[where] / 2).log_softmax(-1) for x in (s, t)]
        value = 4 * F.kl_div(*pair, log_target=True, reduction="batchmean")
        torch.testing.assert_close(found[name].value, value)
    alone = module_of("bert", head, student, teacher, words=LABELS, soft=SOFT)
    student.eval()
    for name, term in alone.terms(given)[0].items():
        torch.testing.assert_close(found[name].value, term.value)


def test_logits_of_a_clean_text_are_compared_at_every_token():
    head, given = asked("bert")
    del given["labels"]
    assert torch.equal(MaskedLM().positions(given), given["attention_mask"].bool())
    module = DistillationModule(model_of("bert", 1, layers=2), model_of("bert", 2), stage("clean", soft=SOFT), 0, head)
    assert module.train().count_units(given).tolist() == [given["attention_mask"].sum().item()]


def test_the_next_word_is_asked_for_and_nothing_after_the_last():
    given = {
        "input_ids": torch.tensor([[5, 6, 7, 0], [8, 9, 10, 11]]),
        "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]),
    }
    assert CausalLM().asked(given, None).tolist() == [[6, 7, -100, -100], [9, 10, 11, -100]]
    assert CausalLM().positions(given).tolist() == [[True, True, True, False], [True] * 4]


@pytest.mark.parametrize(
    ("family", "architecture", "word"),
    [
        ("bert", "BertForMaskedLM", "masked_lm"),
        ("bert", "BertForPreTraining", "masked_lm"),
        ("electra", "ElectraForPreTraining", None),
        ("bert", "BertForSequenceClassification", None),
        ("bert", "BertModel", None),
        ("bert", None, None),
        ("llama", "LlamaForCausalLM", "causal_lm"),
        ("gpt2", "GPT2LMHeadModel", "causal_lm"),
        ("bert", "BertLMHeadModel", None),
        ("llama", "LlamaModel", None),
    ],
)
def test_the_head_follows_from_the_configuration(family, architecture, word):
    config = tiny_config(family)
    config.architectures = architecture and [architecture]
    head = language_head_of(config)
    assert (head and head.word) == word


@pytest.mark.parametrize(
    ("head", "view", "objective", "message"),
    [
        (MaskedLM(), "clean", LABELS, "asks for hidden words, and its view hides none; set view: masked"),
        (MaskedLM(), "mixup", SOFT, "view mixup is not for the logits of a language model"),
        (CausalLM(), "clean", SOFT | {"target": "student"}, "a target other than the teacher is not for the logits"),
        (CausalLM(), "masked", HIDDEN, "view masked hides words of running text"),
        (Classes(), "masked", HIDDEN, "view masked hides words of running text"),
        (Classes(), "clean", SOFT | {"signal": "token_logits"}, "token_logits are of a language model"),
    ],
)
def test_what_cannot_be_is_refused(head, view, objective, message):
    family = "llama" if head.word == "causal_lm" else "bert"
    config = model_of(family).config
    with pytest.raises(UserError, match=message):
        bind_objectives(stage(view, x=objective), config, config, head, 0)
    assert bind_objectives(stage("masked", x=HIDDEN), config, config, Body(), 0)


class Largest(TorchDispatchMode):
    """Watches how many elements any tensor has that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_no_tensor_of_all_logits_is_ever_made(family, monkeypatch):
    vocabulary, rows, tokens = 4000, 8, 32
    sizes = {"layers": 1, "width": 16, "vocab_size": vocabulary}
    student, teacher = model_of(family, 1, **sizes), model_of(family, 2, **sizes)
    head, given = asked(family, lengths=[tokens] * rows, rows=rows, tokens=tokens)
    module = module_of(family, head, student, teacher, words=LABELS, soft=SOFT)
    places = int(head.positions(given).sum())
    with Largest() as whole:
        module(**given)["loss"].backward()
    assert whole.elements == places * vocabulary
    assert (places < 0.6 * rows * tokens) == head.hides
    monkeypatch.setattr(word_logits, "WHOLE_ELEMENTS", 0)
    monkeypatch.setattr(word_logits, "PART_ELEMENTS", 10 * vocabulary)
    with Largest() as parts:
        module(**given)["loss"].backward()
    weights = max(p.numel() for p in student.parameters())
    assert parts.elements == max(10 * vocabulary, weights)

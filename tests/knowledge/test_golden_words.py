"""Terms about words against golden numbers, through the code that training runs."""

import pytest
import torch

from layerstill.heads import CausalLM, MaskedLM
from layerstill.knowledge import word_logits
from layerstill.knowledge.bound_objective import BoundObjective
from layerstill.knowledge.capture import Captured
from layerstill.knowledge.objective import Objective
from layerstill.knowledge.word_logits import WordLogits, add_up
from layerstill.recipe import Recipe
from tests.knowledge.golden import SHAPE, Case, term

GOLD = {"signal": "labels"}


@pytest.fixture(autouse=True, params=["whole", "parts"])
def _both_ways(request, monkeypatch):
    """Logits are computed at once or two places at a time."""
    if request.param == "parts":
        monkeypatch.setattr(word_logits, "WHOLE_ELEMENTS", 0)
        monkeypatch.setattr(word_logits, "PART_ELEMENTS", 20)


def words(case: Case, objective: dict, head, positions: torch.Tensor, labels=None, asked=None):
    """The value of a term on the logits of a case at some places, with labels that are aligned with them; the head asks
    for all of these, or where `asked` says."""
    view = {"view": "masked"} if head.hides else {}
    bound = BoundObjective("term", Objective.model_validate(objective | view), SHAPE, SHAPE, head, seed=0)
    sides = [
        WordLogits.gathered(case[f"{side}_logits"], positions, case["student_logits"].shape[-1], lambda states: states)
        for side in ("student", "teacher")
    ]
    ((amount, count),) = add_up([bound.against_words], *sides, labels, asked)
    one = torch.ones(1, 1, dtype=torch.float64)
    return bound.of_words(amount, count, one, one * count).value


def test_gkd_divergences():
    case = Case("gkd_divergences")
    labelled = case["labels"] != -100
    for temperature in case.parameters["temperatures"]:
        for beta in case.parameters["betas"]:
            name = {0.0: "kl", 1.0: "reverse_kl"}.get(beta, "jsd")
            settings = {"temperature": temperature, "scaled": False} | ({"beta": beta} if name == "jsd" else {})
            value = words(case, {"signal": "logits", "distance": {name: settings}}, CausalLM(), labelled)
            case.check(f"masked.T{temperature}_beta{beta}", value)
            case.check(f"as_released.T{temperature}_beta{beta}", value)
            scaled = {**settings, "scaled": True}
            more = words(case, {"signal": "logits", "distance": {name: scaled}}, CausalLM(), labelled)
            case.check(f"masked.T{temperature}_beta{beta}", more, temperature**2)
    case.check("masked.hard_ce", words(case, GOLD, CausalLM(), case.mask, case["labels"]))


def test_distilbert():
    case = Case("distilbert_triple")
    kl = {"signal": "logits", "distance": {"kl": {"temperature": 2}}}
    asked = case["mlm_labels"] != -100
    on_asked = words(case, kl, MaskedLM(), case.mask, asked=asked)
    on_real = words(case, kl | {"signal": "token_logits"}, MaskedLM(), case.mask, asked=asked)
    case.check("masked.kl_T2_real_tokens", on_real)
    case.check("masked.kl_T2_mlm_positions", on_asked)
    mlm = words(case, GOLD, MaskedLM(), case.mask, case["mlm_labels"], asked)
    case.check("masked.mlm", mlm)
    student, teacher = (Captured(case.mask, hidden={1: case[f"{side}_hidden"]}) for side in ("student", "teacher"))
    cosine = term({"signal": "hidden_states", "distance": "cosine"}, student, teacher, [(1, 1)])
    case.check("masked.cosine", cosine)
    case.check("masked.total_kl_on_real_tokens", 5 * on_real + 2 * mlm + cosine)
    case.check("masked.total_kl_on_mlm_positions", 5 * on_asked + 2 * mlm + cosine)


def test_glmd():
    """The recipe counts every token, whether its word is hidden or not."""
    case = Case("glmd_vocab_kl")
    (own,) = Recipe.load("text-glmd").stages[0].objectives.values()
    few = case.mask & (torch.arange(case.mask.shape[1]) == 1)
    of_recipe = words(case, {"signal": own.signal, "distance": own.distance}, MaskedLM(), case.mask, asked=few)
    case.check("masked.kl_T2", of_recipe)
    kl = words(case, {"signal": "logits", "distance": {"kl": {"temperature": 15}}}, CausalLM(), case.mask)
    case.check("masked.kl_T2", kl)
    case.check("masked.kl_T2_sum_over_tokens", kl * case.mask.sum())
    case.check("masked.mse_logits", words(case, {"signal": "logits", "distance": "mse"}, CausalLM(), case.mask))

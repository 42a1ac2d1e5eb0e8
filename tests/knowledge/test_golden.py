"""The objectives of the recipes against golden numbers, through the code that training runs."""

import json
import random

import pytest
import torch

from layerstill.errors import UserError
from layerstill.heads import Classes
from layerstill.knowledge import mappings
from layerstill.knowledge.alignment import Aligner
from layerstill.knowledge.bound_objective import BoundObjective, ModelShape
from layerstill.knowledge.capture import Captured
from layerstill.knowledge.distances import KL, SoftCrossEntropy
from layerstill.knowledge.mappings import Masses
from layerstill.knowledge.meeting import Target
from layerstill.knowledge.objective import Objective
from layerstill.knowledge.signals import HiddenStates
from layerstill.knowledge.views import Mixing
from layerstill.students.initialisation import INITIALISATIONS
from tests.knowledge.golden import FOLDER, Case, linear, places, record, term

ATTENTION = {"signal": {"attention": {"form": "probabilities"}}, "distance": "kl"}
ONES = torch.ones(1, dtype=torch.bool)


@pytest.fixture(autouse=True, params=["maps", "products"])
def _both_ways(request, monkeypatch):
    """Squared errors between maps are computed with the maps or from their factors."""
    if request.param == "maps":
        monkeypatch.setattr(BoundObjective, "_compares_products", lambda self: False)


def attention(case: Case, side: str, n: int, mask: torch.Tensor) -> Captured:
    values = f"{side}_v" in case.inputs
    records = {
        i + 1: record(case[f"{side}_q"][i], case[f"{side}_k"][i], case[f"{side}_v"][i] if values else None)
        for i in range(n)
    }
    return Captured(mask, attention=records)


def hidden(case: Case, name: str, first: int = 0) -> Captured:
    states = dict(enumerate(case[name], first))
    return Captured(case.mask, hidden=states)


def test_attention_kl():
    case = Case("attention_kl")
    n = len(case["student_q"])
    student, teacher = (attention(case, side, n, case.mask) for side in ("student", "teacher"))
    pairs = [(i, i) for i in range(1, n + 1)]
    soft = {**ATTENTION, "distance": "soft_cross_entropy"}
    kept = {"padding": "included"}
    case.check("masked.kl_per_pair", [term(ATTENTION, student, teacher, [p]) for p in pairs])
    case.check("masked.kl_sum_over_pairs", term(ATTENTION, student, teacher, pairs))
    case.check("masked.kl_sum_over_pairs", term({**ATTENTION, "layers": "mean"}, student, teacher, pairs), 1 / n)
    case.check("masked.soft_ce_sum_over_pairs", term(soft, student, teacher, pairs))
    case.check("masked.soft_ce_last_pair", term(soft, student, teacher, pairs[-1:]))
    case.check("as_released.h2d_kl_sum_over_pairs", term(ATTENTION | kept, student, teacher, pairs))
    case.check("reference.keys_masked_queries_kept_kl_sum_over_pairs", term(ATTENTION | kept, student, teacher, pairs))
    case.check("as_released.crild_soft_ce_sum_over_pairs", term(soft | kept, student, teacher, pairs))


def test_scores_and_probabilities_give_the_same_kl():
    # The bug of one port was a softmax of the softmax; handing over probabilities must not change the divergence.
    case = Case("attention_kl")
    student, teacher = (attention(case, side, 1, case.mask) for side in ("student", "teacher"))
    by_scores = term({"signal": "attention", "distance": "kl"}, student, teacher, [(1, 1)])
    torch.testing.assert_close(by_scores, term(ATTENTION, student, teacher, [(1, 1)]))


def test_attention_scores_mse():
    case = Case("attention_scores_mse")
    n = len(case["student_q"])
    student, teacher = (attention(case, side, n, case.mask) for side in ("student", "teacher"))
    pairs = [(i, i) for i in range(1, n + 1)]
    objective = {"signal": "attention", "distance": "mse"}
    case.check("masked.per_pair", [term(objective, student, teacher, [p]) for p in pairs])
    case.check("masked.sum_over_pairs", term(objective, student, teacher, pairs))
    case.check("masked.mean_over_pairs", term({**objective, "layers": "mean"}, student, teacher, pairs))
    released = term({**objective, "padding": "included"}, student, teacher, pairs)
    case.check("as_released.tinybert_sum_over_pairs", released)
    case.check("as_released.h2d_sum_over_pairs", released)


def test_negative_scores_are_not_zeroed():
    case = Case("attention_scores_mse")
    n = len(case["student_q"])
    student, teacher = (attention(case, side, n, case.mask) for side in ("student", "teacher"))
    value = term({"signal": "attention"}, student, teacher, [(i, i) for i in range(1, n + 1)])
    buggy = case.data["expected"]["as_released.textbrewer_nomask_sum_over_pairs_do_not_reproduce"]
    assert abs(value.item() - buggy) > 0.1 * buggy


def test_hidden_mse():
    case = Case("hidden_mse")
    student, teacher = hidden(case, "student_hidden"), hidden(case, "teacher_hidden")
    index = case.parameters["pairs"]
    pairs = list(zip(index["student_hidden_index"], index["teacher_hidden_index"], strict=True))
    sequence = {"signal": "hidden_states"}
    first = {"signal": {"hidden_states": {"pool": "first"}}}
    released = {**sequence, "padding": "included"}
    case.check("masked.per_pair", [term(sequence, student, teacher, [p]) for p in pairs])
    case.check("masked.sum_over_pairs", term(sequence, student, teacher, pairs))
    case.check("masked.mean_over_pairs", term({**sequence, "layers": "mean"}, student, teacher, pairs))
    case.check("masked.last_pair", term(sequence, student, teacher, pairs[-1:]))
    case.check("reference.first_token_sum_over_pairs", term(first, student, teacher, pairs))
    case.check("reference.first_token_last_pair", term(first, student, teacher, pairs[-1:]))
    cosine = {**sequence, "distance": "cosine"}
    case.check("masked.cosine_distance_sum_over_pairs", term(cosine, student, teacher, pairs))
    case.check("as_released.crild_uniform", term(released, student, teacher, pairs))
    case.check("as_released.h2d_sequence_last", term(released, student, teacher, pairs[-1:]))


def test_hidden_mse_projected():
    case = Case("hidden_mse_projected")
    student, teacher = hidden(case, "student_hidden"), hidden(case, "teacher_hidden")
    pairs = [(i, i) for i in range(len(case["student_hidden"]))]
    aligner = Aligner(linear(case["W"][None], case["b"][None]))
    objective = {"signal": "hidden_states", "alignment": "linear"}
    case.check("masked.sum_over_pairs", term(objective, student, teacher, pairs, aligner))
    case.check("masked.last_pair", term(objective, student, teacher, pairs[-1:], aligner))
    released = term({**objective, "padding": "included"}, student, teacher, pairs, aligner)
    case.check("as_released.crild_sum_over_pairs", released)
    first = {**objective, "signal": {"hidden_states": {"pool": "first"}}}
    case.check("reference.first_token_sum_over_pairs", term(first, student, teacher, pairs, aligner))
    normalised = {**first, "distance": {"normalized_squared": {"mean_over": "elements"}}, "layers": "mean"}
    case.check("as_released.crild_first_token_normalised", term(normalised, student, teacher, pairs, aligner))


def test_masked_mean_pooling():
    case = Case("masked_mean_pooling")
    captured = Captured(case.mask, hidden={1: case["hidden"]})
    pooled, _ = HiddenStates(pool="mean").read(captured, 1, places(case.mask), "excluded", "values")
    unmasked, _ = HiddenStates(pool="mean").read(captured, 1, places(case.mask), "included", "values")
    case.check("masked.pooled", pooled.detach())
    case.check("masked.sum_of_squares", (pooled**2).sum())
    case.check("as_released.pooled_unmasked", unmasked)


def test_minilm():
    case = Case("minilm")
    student, teacher = (attention(case, side, 1, case.mask) for side in ("student", "teacher"))
    maps = term(ATTENTION, student, teacher, [(1, 1)])
    values = term({"signal": {"relation": {"of": "V-V"}}, "distance": "kl"}, student, teacher, [(1, 1)])
    case.check("masked.attention_token_mean", maps)
    case.check("masked.value_relation_token_mean", values)
    case.check("masked.total_token_mean", maps + values)


@pytest.mark.parametrize("letter", ["q", "k", "v"])
def test_relations_with_the_models_own_heads(letter):
    case = Case("minilmv2_equal_heads")
    student, teacher = (attention(case, side, 1, case.mask) for side in ("student", "teacher"))
    signal = {"relation": {"of": f"{letter.upper()}-{letter.upper()}"}}
    kl, soft = {"signal": signal, "distance": "kl"}, {"signal": signal, "distance": "soft_cross_entropy"}
    case.check(f"masked.kl_{letter}{letter}", term(kl, student, teacher, [(1, 1)]))
    case.check(f"masked.soft_ce_{letter}{letter}", term(soft, student, teacher, [(1, 1)]))
    kept = {"padding": "included"}
    case.check(f"as_released.crild_soft_ce_{letter}{letter}", term(soft | kept, student, teacher, [(1, 1)]))
    case.check(f"as_released.h2d_kl_{letter}{letter}", term(kl | kept, student, teacher, [(1, 1)]))


@pytest.mark.parametrize("of", ["Q-Q", "K-K", "V-V", "Q-K"])
def test_relations_cut_into_any_number_of_heads(of):
    case = Case("minilmv2_relations")
    sides = []
    for side in ("student", "teacher"):
        heads = case.parameters[f"{side}_attention_heads"]
        q, k, v = (case[f"{side}_{x}"].unflatten(-1, (heads, -1)).transpose(1, 2) for x in "qkv")
        sides.append(Captured(case.mask, attention={1: record(q, k, v)}))
    for heads in case.parameters["relation_heads"]:
        objective = {"signal": {"relation": {"of": of, "heads": heads}}, "distance": "kl"}
        case.check(f"masked.heads{heads}_{of.replace('-', '').lower()}", term(objective, *sides, [(1, 1)]))


def test_pkd_patience():
    case = Case("pkd_patience")
    student, teacher = hidden(case, "student_hidden"), hidden(case, "teacher_hidden")
    first = {"signal": {"hidden_states": {"pool": "first"}}, "distance": "normalized_squared"}
    elements = {**first, "distance": {"normalized_squared": {"mean_over": "elements"}}, "layers": "mean"}
    batch = len(case.mask)
    for name in ("skip", "last", "uniform_all"):
        index = case.parameters["pairs"][name]
        pairs = list(zip(index["student_hidden_index"], index["teacher_hidden_index"], strict=True))
        case.check(f"reference.{name}_sum", term(first, student, teacher, pairs), 1 / batch)
        if name == "uniform_all":
            continue
        mean = term({**first, "layers": "mean"}, student, teacher, pairs)
        case.check(f"reference.{name}_mean_over_pairs_and_batch", mean)
        released = term(elements, student, teacher, pairs)
        case.check(f"reference.{name}_mean_over_everything", released)
        case.check(f"as_released.{name}_half_precision", released)
        case.check(f"as_released.{name}_crild", released)


def test_rail_kd_layerwise():
    case = Case("rail_kd_layerwise")
    student, teacher = hidden(case, "student_hidden", 1), hidden(case, "teacher_hidden", 1)
    layers_s, layers_t = list(student.hidden), list(teacher.hidden)
    chosen = [block + 1 for block in case.parameters["selected_teacher_blocks"]]
    pairs = list(zip(layers_s, chosen, strict=True))
    objective = {
        "signal": {"hidden_states": {"pool": "mean"}},
        "alignment": {"linear": {"sides": "both", "width": 5, "maps": "per_layer"}},
        "distance": "normalized_squared",
    }
    aligner = Aligner(
        linear(case["W_student"], case["b_student"], layers_s), linear(case["W_teacher"], case["b_teacher"], layers_t)
    )
    case.check("masked.squared_sum_over_layers_mean_over_batch", term(objective, student, teacher, pairs, aligner))
    shared = Aligner(*(linear(case[f"W_{s}"][:1], case[f"b_{s}"][:1]) for s in ("student", "teacher")))
    value = term(objective, student, teacher, pairs, shared)
    case.check("masked.shared_projection_squared_sum_over_layers_mean_over_batch", value)
    released = term({**objective, "padding": "included"}, student, teacher, pairs, shared)
    case.check("as_released.glmkd_shared_projection_total_sum", released, 1 / len(case.mask))


def test_rail_kd_concatenated():
    case = Case("rail_kd_concatenated")
    student, teacher = hidden(case, "student_hidden", 1), hidden(case, "teacher_hidden", 1)
    chosen = [block + 1 for block in case.parameters["selected_teacher_blocks"]]
    pairs = list(zip(student.hidden, chosen, strict=True))
    objective = {
        "signal": {"hidden_states": {"pool": "mean"}},
        "mapping": {"uniform": {"meet": "concatenated"}},
        "alignment": {"linear": {"sides": "both", "width": 5}},
        "distance": "normalized_squared",
    }
    maps = (linear(case[f"W_{s}"][None], case[f"b_{s}"][None]) for s in ("student", "teacher"))
    aligner = Aligner(*maps)
    case.check("masked.squared_mean_over_batch", term(objective, student, teacher, pairs, aligner))
    released = term({**objective, "padding": "included"}, student, teacher, pairs, aligner)
    case.check("as_released.glmkd_sum", released, 1 / len(case.mask))


def test_soft_targets():
    case = Case("soft_targets")
    s, t = case["student_logits"], case["teacher_logits"]
    temperature, alpha = case.parameters["T"], case.parameters["alpha"]

    def mean(distance):
        total, count = distance(s, t, ONES)
        return total / count

    case.check("reference.kl_mean", mean(KL(temperature=temperature, scaled=False)))
    case.check("reference.kl_T2_mean", mean(KL(temperature=temperature)))
    case.check("reference.soft_ce_mean", mean(SoftCrossEntropy(temperature=temperature, scaled=False)))
    case.check("reference.soft_ce_T2_mean", mean(SoftCrossEntropy(temperature=temperature)))
    case.check("as_released.tkc_kl_T1", mean(KL()))
    hard = torch.nn.functional.cross_entropy(s, case["labels"])
    case.check("reference.hard_ce_mean", hard)
    case.check("reference.mixture", (1 - alpha) * hard + alpha * mean(KL(temperature=temperature)))


def test_soft_targets_of_a_regression():
    case = Case("soft_targets_regression")
    s, t = case["student_logits"], case["teacher_logits"]
    temperature = case.parameters["T"]

    def mean(distance):
        total, count = distance.for_scores()(s, t, ONES)
        return total / count

    case.check("reference.mse", mean(SoftCrossEntropy(temperature=temperature)))
    case.check("as_released.crild_regression", mean(SoftCrossEntropy(temperature=temperature, scaled=False)))


def test_mixup():
    case = Case("crild_mixup")
    mixing = Mixing(case.parameters["lambda"])
    case.check("reference.mixed_embeddings", mixing.embeddings(case["embeddings"]))
    case.check("reference.mixed_attention_mask", mixing.mask(case.mask).double())
    assert mixing.partner(torch.arange(len(case.mask))).tolist() == case.parameters["partner"]


def consistency(case: Case, objective: dict, padding: str) -> torch.Tensor:
    mix = Captured(case.mask | case.mask.flip(0), hidden={1: case["student_mix_hidden"]})
    mix.attention[1] = record(case["student_mix_q"], case["student_mix_k"])
    clean = Captured(case.mask, hidden={1: case["student_clean_hidden"]})
    clean.attention[1] = record(case["student_clean_q"], case["student_clean_k"])
    lam = case.parameters["lambda"]
    targets = [
        Target(clean, places(case.mask), share=lam),
        Target(clean, places(case.mask.flip(0)), share=1 - lam, partner=True),
    ]
    spec = {**objective, "target": "student", "padding": padding}
    return case.parameters["ramp"] * term(spec, mix, clean, [(1, 1)], targets=targets)


def test_crild_consistency():
    case = Case("crild_consistency")
    soft = {**ATTENTION, "distance": "soft_cross_entropy"}
    case.check("masked.hidden", consistency(case, {"signal": "hidden_states"}, "excluded"))
    case.check("masked.attention_soft_ce", consistency(case, soft, "excluded"))
    case.check("masked.attention_kl", consistency(case, ATTENTION, "excluded"))
    case.check("as_released.hidden", consistency(case, {"signal": "hidden_states"}, "included"))


def test_crild_stage_1_total():
    case = Case("crild_stage1_total")
    mixed_mask = case.mask | case.mask.flip(0)
    student = Captured(mixed_mask, hidden={1: case["student_mix_hidden"]})
    student.attention[1] = record(case["student_mix_q"], case["student_mix_k"])
    teacher = Captured(mixed_mask, hidden={1: case["teacher_mix_hidden"]})
    teacher.attention[1] = record(case["teacher_mix_q"], case["teacher_mix_k"])
    soft = {**ATTENTION, "distance": "soft_cross_entropy"}
    parts = {
        "attention_teacher": term(soft, student, teacher, [(1, 1)]),
        "hidden_teacher": term({"signal": "hidden_states"}, student, teacher, [(1, 1)]),
        "attention_consistency": consistency(case, soft, "excluded"),
        "hidden_consistency": consistency(case, {"signal": "hidden_states"}, "excluded"),
    }
    for name, value in parts.items():
        case.check(f"masked.{name}", value)
    case.check("masked.total", sum(parts.values()))


TABLE = json.loads((FOLDER / "layer_mappings.json").read_text("utf-8"))["pairs"]
# (mapping, name in the golden table, whether the table counts blocks from 0 instead of hidden states from 0)
STRATEGIES = [
    (mappings.Uniform(embeddings=True), "tinybert_hidden", False),
    (mappings.Uniform(), "tinybert_attention", True),
    (mappings.Uniform(final_layer="excluded"), "pkd_skip", False),
    (mappings.Uniform(uneven="segments"), "segments", False),
    (mappings.Last(layers="all", final_layer="excluded"), "pkd_last", False),
    (mappings.Last(), "last_only_hidden", False),
    (mappings.Last(), "last_only_attention", True),
    (mappings.Last(layers="all"), "last_k", True),
    (mappings.First(), "first", True),
    (mappings.Reversed(), "reversed_uniform", True),
]


@pytest.mark.parametrize("depths", TABLE)
@pytest.mark.parametrize(("mapping", "name", "blocks"), STRATEGIES, ids=[s[1] for s in STRATEGIES])
def test_mappings(depths, mapping, name, blocks):
    entry = TABLE[depths]
    S, T = entry["student_layers"], entry["teacher_layers"]
    expected = entry["mappings"][name]
    if expected == "error":
        with pytest.raises(UserError, match=f"{S} does not divide {T}"):
            mapping.draw_pairs(S, T, random.Random(0))
        return
    got = [[p.student - blocks, p.teacher - blocks] for p in mapping.draw_pairs(S, T, random.Random(0))]
    assert got == expected


@pytest.mark.parametrize("depths", TABLE)
@pytest.mark.parametrize(("final", "name"), [("excluded", "glmkd"), ("included", "tkc002")])
def test_random_mapping_draws_every_subset_equally_often(depths, final, name):
    entry = TABLE[depths]
    expected = entry["random_sorted"][name]
    offset = 1 if expected["index"] == "block" else 0
    mapping = mappings.Random(final_layer=final)
    low, high = (c + offset for c in expected["candidates"])
    draws = 4000
    uses = dict.fromkeys(range(low, high + 1), 0)
    rng = random.Random(1)
    for _ in range(draws):
        pairs = mapping.draw_pairs(entry["student_layers"], entry["teacher_layers"], rng)
        assert [p.student for p in pairs] == [i + offset for i in expected["student_indices"]]
        teachers = [p.teacher for p in pairs]
        assert teachers == sorted(set(teachers))
        for layer in teachers:
            uses[layer] += 1
    p = expected["probability_a_candidate_is_used_in_one_draw"]
    for layer, count in uses.items():
        assert count / draws == pytest.approx(p, abs=0.04), layer


@pytest.mark.parametrize("depths", TABLE)
@pytest.mark.parametrize(("name", "key"), [("first-k", "first_k"), ("last-k", "last_k"), ("every-k", "every_k_end")])
def test_initialisations(depths, name, key):
    entry = TABLE[depths]
    S, T = entry["student_layers"], entry["teacher_layers"]
    expected = entry["initialisation"][key]
    if expected == "error":
        with pytest.raises(UserError, match=f"{S} student layers do not divide {T}"):
            INITIALISATIONS[name]().choose(S, T, random.Random(0))
        return
    assert INITIALISATIONS[name]().choose(S, T, random.Random(0)) == [block + 1 for block in expected]


TOGETHER = {"first_token": "first", "mean_pooled": "mean"}


@pytest.mark.parametrize(("kind", "pool"), TOGETHER.items())
def test_rkd(kind, pool):
    case = Case("rkd")
    student, teacher = (Captured(case.mask, hidden={1: case[f"{side}_hidden"]}) for side in ("student", "teacher"))
    prefix = "reference" if pool == "first" else "masked"
    for relation, name, all_, some in (
        ("pair_distances", "distance", "B2", "pairs"),
        ("angles", "angle", "B3", "distinct_triples"),
    ):
        objective = {"signal": {"hidden_states": {"pool": pool}}, "distance": "huber"}
        own = {**objective, "relate": {relation: {"over": "batch"}}}
        every = {**objective, "relate": {relation: {"over": "batch", "degenerate": "included"}}}
        case.check(f"{prefix}.{kind}_{name}_mean_over_{some}", term(own, student, teacher, [(1, 1)]))
        whole = term(every, student, teacher, [(1, 1)])
        case.check(f"{prefix}.{kind}_{name}_mean_over_{all_}", whole)
        if pool == "first":
            case.check(f"as_released.torchdistill_{name}_first_token", whole)
    if pool == "first":
        own = {"signal": {"hidden_states": {"pool": pool}}, "distance": "huber", "relate": "pair_distances"}
        case.check("as_released.tkc_distance_first_token", term(own, student, teacher, [(1, 1)]))


ANCHORS = {"teacher_anchor": "teacher", "student_anchor": "student", "symmetric": "both"}


@pytest.mark.parametrize(("anchor", "word"), ANCHORS.items())
@pytest.mark.parametrize(("kind", "pool"), TOGETHER.items())
def test_infonce_between_all_layers_joined(kind, pool, anchor, word):
    case = Case("infonce_in_batch")
    student, teacher = hidden(case, "student_hidden"), hidden(case, "teacher_hidden")
    aligner = Aligner(
        linear(case["W_student"][None], case["b_student"][None]),
        linear(case["W_teacher"][None], case["b_teacher"][None]),
    )
    layers = [tuple(range(len(case[f"{side}_hidden"]))) for side in ("student", "teacher")]
    prefix = "reference" if pool == "first" else "masked"
    for tau in case.parameters["temperatures"]:
        objective = {
            "signal": {"hidden_states": {"pool": pool}},
            "mapping": {"all": {"embeddings": False}},
            "distance": {"infonce": {"temperature": tau, "anchor": word}},
            "alignment": {"linear": {"sides": "both"}},
        }
        value = term(objective, student, teacher, [], aligner, joined=layers)
        case.check(f"{prefix}.{kind}_tau{tau}_{anchor}", value)
        if (pool, word, tau) == ("first", "teacher", 2.0):
            case.check("as_released.cilda_tau2", value)


def test_contextual_kd_between_words():
    case = Case("ckd_contextual_words")
    student, teacher = hidden(case, "student_hidden"), hidden(case, "teacher_hidden")
    pairs = [(i, i) for i in range(len(case["student_hidden"]))]
    rows = {"signal": "hidden_states", "relate": {"cosines": {"over": "tokens"}}, "distance": "kl"}
    case.check("masked.pair_mean_over_rows", term({**rows, "layers": "mean"}, student, teacher, pairs))
    triples = {"signal": "hidden_states", "relate": {"angles": {"over": "tokens"}}, "layers": "mean"}
    case.check("masked.triple_mean_over_distinct_triples", term(triples, student, teacher, pairs))


def test_contextual_kd_between_layers():
    case = Case("ckd_contextual_layers")
    student, teacher = hidden(case, "student_hidden"), hidden(case, "teacher_hidden")
    pairs = [(i, i) for i in range(len(case["student_hidden"]))]
    rows = {"signal": "hidden_states", "relate": {"cosines": {"over": "layers"}}, "distance": "kl"}
    case.check("masked.pair_mean_over_rows", term(rows, student, teacher, pairs))
    triples = {"relate": {"angles": {"over": "layers", "degenerate": "included"}}, "signal": "hidden_states"}
    case.check("masked.triple_released_normaliser", term(triples, student, teacher, pairs))
    case.check("as_released.triple", term(triples, student, teacher, pairs))


def whole(case: Case, objective: dict, S: int, T: int, first: int = 1) -> tuple[torch.Tensor, BoundObjective]:
    """The value over all of a mapping's own groups, and the objective that has it."""
    student, teacher = hidden(case, "student_hidden", first), hidden(case, "teacher_hidden", first)
    shapes = (ModelShape(S, 6, 1, 6), ModelShape(T, 6, 1, 6))
    bound = BoundObjective("term", Objective.model_validate(objective), *shapes, Classes(), seed=0)
    units = bound.count([places(case.mask)], 0, 0)
    target = Target(teacher, places(case.mask))
    compared = bound.compared(0, 0)
    return bound.against(student, [target], None, compared, torch.ones_like(units), units).value, bound


@pytest.mark.parametrize("detached", [False, True])
def test_alp_kd(detached):
    case = Case("alp_kd")
    mapping = {"attended": {"detached": detached}}
    objective = {"signal": {"hidden_states": {"pool": "first"}}, "mapping": mapping, "distance": "mse"}
    name = "reference.loss_sum_over_layers" + "_alpha_detached" * detached
    case.check(name, whole(case, objective, 3, 5, 0)[0])
    if not detached:
        case.check("as_released.glmkd_sum_over_layers", whole(case, objective, 3, 5, 0)[0])
        with_embeddings = {**objective, "mapping": {"attended": {"embeddings": True}}, "layers": "mean"}
        case.check("reference.with_embeddings_mean_over_layers", whole(case, with_embeddings, 3, 5, 0)[0])
        case.check("as_released.h2d_with_embeddings_mean", whole(case, with_embeddings, 3, 5, 0)[0])


@pytest.mark.parametrize("masses", ["uniform", "given"])
def test_bert_emd(masses):
    case = Case("bert_emd")
    objective = {"signal": "hidden_states", "mapping": "optimal_transport", "distance": "mse"}
    spec = Objective.model_validate(objective)
    bound = BoundObjective("term", spec, ModelShape(3, 6, 1, 6), ModelShape(6, 6, 1, 6), Classes(), seed=0)
    if masses == "given":
        for side in ("student", "teacher"):
            getattr(bound.mapping_state, side).copy_(
                torch.tensor(case.parameters[f"{side}_masses"], dtype=torch.float64)
            )
    student, teacher = hidden(case, "student_hidden", 1), hidden(case, "teacher_hidden", 1)
    units = bound.count([places(case.mask)], 0, 0)
    target = Target(teacher, places(case.mask))
    value = bound.against(student, [target], None, bound.compared(0, 0), torch.ones_like(units), units).value
    case.check(f"masked.{masses}_loss", value)
    bound.mapping_state.finish_step()
    for side in ("student", "teacher"):
        case.check(f"masked.{masses}_updated_{side}_masses", getattr(bound.mapping_state, side))
    plan = Masses(3, 6, learnt=True)
    if masses == "given":
        for side in ("student", "teacher"):
            getattr(plan, side).copy_(torch.tensor(case.parameters[f"{side}_masses"], dtype=torch.float64))
    found = plan.transport(torch.tensor(case.data["expected"]["masked.cost"], dtype=torch.float64).flatten()).view(3, 6)
    torch.testing.assert_close(found.sum(1), plan.student, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.sum(0), plan.teacher, rtol=0, atol=1e-12)
    case.check(f"masked.{masses}_plan", found)

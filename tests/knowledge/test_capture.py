"""Capture: what is recorded is what the model computes, and recording changes nothing."""

import copy
import re

import pytest
import torch

from layerstill.errors import UserError
from layerstill.families import FAMILIES as PROVEN
from layerstill.families import family_of, layers_of, recorder_of
from layerstill.knowledge.capture import ATTENTION_NAME, CapturePlan
from layerstill.knowledge.signals import Attention, HiddenStates
from tests.knowledge.golden import places
from tests.tiny import FAMILIES, batch, tiny_config, tiny_model


def inputs(data):
    return {"input_ids": data["input_ids"]}


recorder = recorder_of


def test_every_proven_family_is_tested():
    assert set(FAMILIES) == set(PROVEN)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [[9, 7, 4, 8], [9, 9, 9, 9]], ids=["padded", "full"])
def test_probabilities_from_recorded_q_and_k_are_the_models_own(family, lengths):
    data = batch(lengths=lengths)
    mask = data["attention_mask"].bool()
    eager = tiny_model(family)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        own = eager(**inputs(data), attention_mask=data["attention_mask"], output_attentions=True).attentions
        captured = recorder(tiny_model(family)).run(CapturePlan(attention=frozenset({1, 2, 3, 4})), inputs(data), mask)
    for layer in (1, 2, 3, 4):
        values, allowed = Attention(form="probabilities").read(captured, layer, places(mask), "excluded", "values")
        real = mask[:, None, :, None].expand_as(values)
        torch.testing.assert_close(values[real], own[layer - 1][real], atol=2e-6, rtol=1e-5)
        assert not allowed.expand_as(values)[~real].any()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("training", [False, True])
def test_recording_does_not_change_the_logits(family, training):
    data = batch()
    plain, recorded = tiny_model(family), tiny_model(family)
    plan = CapturePlan(attention=frozenset({2}), hidden=frozenset({0, 1, 4}), logits=True)
    results = []
    for model, run in (
        (plain, lambda m: m(**inputs(data), **family_of(m.config).call, attention_mask=data["attention_mask"]).logits),
        (recorded, lambda m: recorder(m).run(plan, inputs(data), data["attention_mask"].bool()).logits),
    ):
        model.train(training)
        torch.manual_seed(3)
        results.append(run(model))
    torch.testing.assert_close(*results, atol=0, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_the_models_own(family):
    data, model = batch(), tiny_model(family)
    with torch.no_grad():
        own = model(**inputs(data), attention_mask=data["attention_mask"], output_hidden_states=True).hidden_states
        plan = CapturePlan(hidden=frozenset({0, 1, 2, 3}))
        captured = recorder(model).run(plan, inputs(data), data["attention_mask"].bool())
    assert set(captured.hidden) == {0, 1, 2, 3}
    for layer, state in captured.hidden.items():
        torch.testing.assert_close(state, own[layer], atol=0, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_beyond_the_plan_do_not_run(family):
    data, model = batch(), tiny_model(family)
    ran = []
    for layer in dict.fromkeys(layers_of(model)):  # shared layers are one module
        layer.register_forward_hook(lambda *_: ran.append(len(ran) + 1))
    for plan, expected in (
        (CapturePlan(hidden=frozenset({2})), [1, 2]),
        (CapturePlan(attention=frozenset({3}), hidden=frozenset({1})), [1, 2, 3]),
        (CapturePlan(hidden=frozenset({0})), []),
        (CapturePlan(hidden=frozenset({1}), logits=True), [1, 2, 3, 4]),
    ):
        ran.clear()
        captured = recorder(model).run(plan, inputs(data), data["attention_mask"].bool())
        assert ran == expected
        assert set(captured.hidden) == plan.hidden
        assert set(captured.attention) == plan.attention
        assert (captured.logits is not None) == plan.logits


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_flow_through_recorded_tensors(family):
    data, model = batch(), tiny_model(family)
    mask = data["attention_mask"].bool()
    captured = recorder(model).run(CapturePlan(attention=frozenset({2})), inputs(data), mask)
    scores, allowed = Attention().read(captured, 2, places(mask), "excluded", "values")
    scores[allowed.expand_as(scores)].square().sum().backward()
    reached = [n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any("embed" in n or "wte" in n for n in reached)
    assert any(re.search(r"query|q_lin|Wqkv|attn\.q\.|q_proj|c_attn", n) for n in reached)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_stays_on_the_model(family, tmp_path):
    data, model = batch(), tiny_model(family)
    before = set(model.state_dict())
    plan = CapturePlan(attention=frozenset({1, 4}), hidden=frozenset({1, 4}))
    recorder(model).run(plan, inputs(data), data["attention_mask"].bool())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "_layerstill_slot" not in module.__dict__
    assert set(model.state_dict()) == before
    model.save_pretrained(tmp_path)
    assert ATTENTION_NAME not in (tmp_path / "config.json").read_text("utf-8")


def test_a_switch_of_one_model_leaves_its_sibling_alone():
    teacher = tiny_model()
    student = type(teacher)(copy.deepcopy(teacher.config))
    recorder(teacher).prepare(CapturePlan(attention=frozenset({1})))
    assert teacher.config._attn_implementation == ATTENTION_NAME
    assert student.config._attn_implementation == "sdpa"


def test_embeddings_can_be_edited():
    data, model = batch(), tiny_model()
    mask = data["attention_mask"].bool()
    plan = CapturePlan(hidden=frozenset({0, 2}))
    with torch.no_grad():
        clean = recorder(model).run(plan, inputs(data), mask)
        same = recorder(model).run(plan, inputs(data), mask, lambda e: e)
        zero = recorder(model).run(plan, inputs(data), mask, torch.zeros_like)
    torch.testing.assert_close(clean.hidden[2], same.hidden[2], atol=0, rtol=0)
    assert zero.hidden[0].abs().sum() == 0
    assert not torch.allclose(zero.hidden[2], clean.hidden[2])


def test_left_padding_gives_the_same_vectors_as_right_padding():
    right = {1: torch.arange(24.0).reshape(2, 4, 3)}
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool()
    from layerstill.knowledge.capture import Captured

    left = {1: torch.stack([right[1][0].roll(1, 0), right[1][1].roll(2, 0)])}
    left_mask = mask.flip(1)
    for pool in ("first", "mean"):
        signal = HiddenStates(pool=pool)
        a, _ = signal.read(Captured(mask, hidden=right), 1, places(mask), "excluded", "values")
        b, _ = signal.read(Captured(left_mask, hidden=left), 1, places(left_mask), "excluded", "values")
        torch.testing.assert_close(a, b)


def test_an_unproven_family_is_refused_with_the_list():
    config = tiny_config("bert")
    config.model_type = "xlnet"
    with pytest.raises(UserError, match=r"'xlnet' is not supported; supported: bert, .*opt"):
        family_of(config)


@pytest.mark.parametrize(
    ("family", "setting"), [("deberta-v2", "conv_kernel_size"), ("gpt2", "scale_attn_by_inverse_layer_idx")]
)
def test_variants_that_are_not_proven_are_refused(family, setting):
    with pytest.raises(UserError, match=f"model family '{family}' with {setting} .* is not supported; only without it"):
        family_of(tiny_config(family, **{setting: 3 if "size" in setting else True}))


def test_queries_that_come_scaled_are_recorded_as_they_were():
    """OPT divides its queries before attention; a relation of them must not divide twice."""
    from layerstill.knowledge.signals import Relation

    data, model = batch(), tiny_model("opt")
    mask = data["attention_mask"].bool()
    seen = []
    layers_of(model)[0].self_attn.q_proj.register_forward_hook(lambda *a: seen.append(a[2]))
    captured = recorder(model).run(CapturePlan(attention=frozenset({1})), inputs(data), mask)
    q = seen[0].unflatten(-1, (4, 12)).transpose(1, 2)
    relation, _ = Relation(of="Q-Q").read(captured, 1, places(mask), "excluded", "values")
    torch.testing.assert_close(relation, q @ q.transpose(-1, -2) / 12**0.5)


def test_deberta_without_position_scores_has_no_bias():
    data, model = batch(), tiny_model("deberta-v2", pos_att_type=[])
    plan = CapturePlan(attention=frozenset({1}))
    assert recorder(model).run(plan, inputs(data), data["attention_mask"].bool()).attention[1].bias is None


def test_nothing_stays_on_the_model_when_a_pass_fails():
    data, model = batch(), tiny_model("deberta-v2")
    layers_of(model)[1].output.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        recorder(model).run(CapturePlan(attention=frozenset({1, 2})), inputs(data), data["attention_mask"].bool())
    for module in model.modules():
        assert not module._forward_pre_hooks
        assert "_layerstill_slot" not in module.__dict__
        assert "disentangled_attention_bias" not in module.__dict__

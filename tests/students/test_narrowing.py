"""Narrower students: every family that claims them, every rule, and what a rule promises."""

import re

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from layerstill.errors import UserError
from layerstill.families import FAMILIES as PROVEN
from layerstill.students.build import build_student
from layerstill.students.spec import StudentSpec
from tests.tiny import FAMILIES, batch, tiny_model

NARROWABLE = [name for name in FAMILIES if PROVEN[name].widths is not None]
INPUTS = {name: tensor for name, tensor in batch().items() if name != "labels"}


def spec(**settings) -> StudentSpec:
    return StudentSpec.model_validate(settings)


def logits(model):
    with torch.no_grad():
        return model.eval()(**INPUTS).logits


@pytest.mark.parametrize("rule", ["slice", "importance", "svd"])
@pytest.mark.parametrize("family", NARROWABLE)
def test_every_weight_of_a_narrower_student_comes_from_the_teacher(family, rule, tmp_path):
    teacher = tiny_model(family)
    settings = spec(hidden_size=24, intermediate_size=40, narrowing=rule, initialisation="last-k")
    students = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        students.append(build_student(teacher, 2, settings, seed=0))
    first, second = (s.state_dict() for s in students)
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], atol=0, rtol=0, msg=f"{name} is random")
        assert weight.isfinite().all()
    config = students[0].config
    assert (config.hidden_size, config.num_attention_heads) == (24, 2 if family == "modernbert" else 4)
    assert getattr(config, PROVEN[family].widths.intermediate) == 40
    students[0].save_pretrained(tmp_path)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(logits(loaded), logits(students[0]))


@pytest.mark.parametrize("family", NARROWABLE)
def test_slices_are_the_first_units(family):
    teacher = tiny_model(family)
    student = build_student(
        teacher, 4, spec(hidden_size=24, attention_heads=2, intermediate_size=40, narrowing="slice"), seed=0
    )
    theirs = teacher.state_dict()
    fused = ("Wqkv", "Wi")
    for name, weight in student.state_dict().items():
        if not any(part in name for part in fused):
            corner = theirs[name][tuple(slice(n) for n in weight.shape)]
            torch.testing.assert_close(weight, corner, atol=0, rtol=0, msg=name)
    if family == "modernbert":
        name = "model.layers.1.attn.Wqkv.weight"
        expected = torch.cat([theirs[name][48 * i : 48 * i + 24, :24] for i in range(3)])
        torch.testing.assert_close(student.state_dict()[name], expected, atol=0, rtol=0)


@pytest.mark.parametrize("family", NARROWABLE)
def test_heads_and_units_that_do_nothing_are_the_ones_that_go(family):
    """Silence two heads and some feed-forward units; a student without them computes what the teacher does."""
    teacher = tiny_model(family)
    widths = PROVEN[family].widths
    dead_units = torch.arange(96)[1::4]
    for name, weight in teacher.state_dict().items():
        if re.search(widths.attention_out, name) and "pos_" not in name:
            for block in weight.split(48):
                block[12:24] = 0
                block[36:] = 0
        elif re.search(widths.attention_in, name):
            weight[:, 12:24] = 0
            weight[:, 36:] = 0
        elif re.search(widths.ffn_out, name):
            for block in weight.split(96):
                block[dead_units] = 0
        elif re.search(widths.ffn_in, name):
            weight[:, dead_units] = 0
    before = logits(teacher)
    kept = build_student(teacher, 4, spec(intermediate_size=72), seed=0)
    torch.testing.assert_close(logits(kept), before, atol=1e-5, rtol=1e-4)
    layers = {n: int(n.split(".")[i]) + 1 for n, i in _numbered(teacher)}
    from layerstill.students.narrowing import Narrowing, narrow_config

    config = narrow_config(teacher.config, spec(hidden_size=24, attention_heads=2))
    narrowing = Narrowing(dict(teacher.state_dict()), layers, teacher.config, config, "importance")
    assert narrowing._chosen_heads(1).tolist() == [0, 2]


def _numbered(model):
    stem = f"{model.base_model_prefix}.{PROVEN[model.config.model_type].layers}."
    return [(n, stem.count(".")) for n in model.state_dict() if n.startswith(stem)]


def test_importance_keeps_what_is_large_and_svd_what_varies():
    teacher = tiny_model("bert")
    loud = [3, 11, 12, 20, 21, 30, 31, 40, 41, 42, 45, 47]
    quiet = [i for i in range(48) if i not in loud]
    with torch.no_grad():
        for parameter in teacher.parameters():
            for axis in range(parameter.ndim if parameter.ndim == 2 else 0):
                if parameter.shape[axis] == 48:
                    parameter.index_fill_(axis, torch.tensor(quiet), 0)
    for rule in ("importance", "svd"):
        student = build_student(teacher, 4, spec(hidden_size=12, attention_heads=4, narrowing=rule), seed=0)
        mine = student.bert.embeddings.word_embeddings.weight
        theirs = teacher.bert.embeddings.word_embeddings.weight[:, loud]
        # The projection may turn the space, but keeps every length and angle between tokens.
        torch.testing.assert_close(mine @ mine.T, theirs @ theirs.T, atol=1e-5, rtol=1e-4)


def test_widths_that_do_not_change_leave_the_function_alone():
    teacher = tiny_model("bert")
    for rule in ("slice", "importance", "svd"):
        same = build_student(teacher, 4, spec(hidden_size=48, intermediate_size=96, narrowing=rule), seed=0)
        torch.testing.assert_close(logits(same), logits(teacher), atol=0, rtol=0)


def test_embeddings_can_be_factorised():
    for family in ("electra", "albert"):
        teacher = tiny_model(family)
        student = build_student(teacher, 4, spec(embedding_size=8, narrowing="svd"), seed=0)
        embeddings = student.base_model.embeddings.word_embeddings.weight
        assert embeddings.shape[1] == 8
        assert student.num_parameters() < teacher.num_parameters()
        assert logits(student).isfinite().all()
    whole = tiny_model("electra", embedding_size=48)  # its embeddings are as wide as its layers: no projector
    torch.manual_seed(1)
    student = build_student(whole, 4, spec(embedding_size=12, narrowing="slice"), seed=0)
    expected = torch.eye(48)[:, :12]
    torch.testing.assert_close(student.electra.embeddings_project.weight.detach(), expected)
    assert student.electra.embeddings_project.bias.abs().sum() == 0


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("bert", {"hidden_size": 96}, "student.hidden_size 96: the source has 48; choose 48 or less"),
        ("bert", {"hidden_size": 22}, "22 with 4 attention heads: heads must divide it; .*: 12, 24, 36, 48"),
        ("bert", {"attention_heads": 8}, "student.attention_heads 8: the source has 4; choose 4 or less"),
        ("bert", {"attention_heads": 2}, "heads of width 24 would be wider than the source's 12; use 4 heads or more"),
        ("bert", {"intermediate_size": 200}, "student.intermediate_size 200: the source has 96"),
        ("bert", {"embedding_size": 12}, "'bert' has no factorised embeddings; those that have: electra, albert"),
        ("modernbert", {"hidden_size": 24, "attention_heads": 4}, "heads must stay 12 wide"),
        (
            "llama",
            {"hidden_size": 24},
            "narrower students of family 'llama' are not supported; supported: bert, .*deberta-v2",
        ),
    ],
)
def test_widths_that_do_not_fit_are_refused_with_what_would(family, settings, message):
    with pytest.raises(UserError, match=message):
        build_student(tiny_model(family), 2, spec(**settings), seed=0)


@pytest.mark.parametrize("family", NARROWABLE)
@pytest.mark.parametrize("rule", ["importance", "svd"])
def test_embeddings_and_layers_are_cut_in_the_same_units(family, rule):
    """Hidden units that nothing reads or writes are the ones that go, in embeddings and layers alike."""
    extra = {"embedding_size": 48} if family == "electra" else {}
    teacher = tiny_model(family, **extra)
    alive = torch.tensor([i for i in range(48) if i % 4 < 2])
    dead = torch.tensor([i for i in range(48) if i % 4 >= 2])
    widths = PROVEN[family].widths
    with torch.no_grad():
        for name, weight in teacher.named_parameters():
            wide = [axis for axis in range(weight.ndim) if weight.shape[axis] == 48]
            if weight.ndim == 2 and family != "albert":
                if re.search(widths.attention_out, name):
                    wide = [1]
                elif re.search(widths.attention_in, name):
                    wide = [0]
            for axis in wide:
                weight.index_fill_(axis, dead, 0)
    student = build_student(teacher, 4, spec(hidden_size=24, attention_heads=2, narrowing=rule), seed=0)
    if family == "albert":
        return  # its embeddings are always mapped, so they have units of their own
    mine, theirs = (m.get_input_embeddings().weight for m in (student, teacher))
    name = next(n for n in student.state_dict() if re.search(widths.attention_out, n) and n.endswith("weight"))
    reads, whole = student.state_dict()[name], teacher.state_dict()[name]
    # What a layer reads of a token keeps its size: all of it lies in units that were kept.
    kept = (mine @ reads.T).norm() / (theirs[:, alive] @ whole[:, alive].T).norm()
    total = mine.norm() / theirs.norm()
    assert total > 0.99
    assert kept > 0.4, "embeddings and layers were cut in different units"


def test_a_deberta_with_a_head_width_of_its_own_can_be_narrower():
    teacher = tiny_model("deberta-v2", attention_head_size=12)
    student = build_student(teacher, 2, spec(hidden_size=24, attention_heads=4), seed=0)
    assert logits(student).isfinite().all()
    assert student.config.attention_head_size == 6


def test_positions_are_no_hidden_units_however_many_there_are():
    from layerstill.students.narrowing import Narrowing, narrow_config

    teacher = tiny_model("bert", max_position_embeddings=48)
    narrowing = Narrowing({}, {}, teacher.config, narrow_config(teacher.config, spec(hidden_size=24)), "importance")
    name = "bert.embeddings.position_embeddings.weight"
    assert narrowing._spaces(name, teacher.get_parameter(name)) == [None, "hidden"]


def test_an_electra_whose_map_would_vanish_is_refused():
    with pytest.raises(
        UserError, match="hidden_size 24 is the width of the token embeddings, so the student would have no"
    ):
        build_student(tiny_model("electra", embedding_size=24), 2, spec(hidden_size=24), seed=0)

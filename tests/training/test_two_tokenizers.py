"""Student and teacher with tokenizers of their own: what they are compared in, and what may not change a loss."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from layerstill import Recipe, UserError
from layerstill.data.encode import Collator, encode
from layerstill.data.readers import Readers
from layerstill.data.tasks import Split
from layerstill.heads import Classes, Head, Tokens
from layerstill.students.build import build_student
from layerstill.training.batches import ShareCollator, share
from layerstill.training.left_out import without_token_terms
from layerstill.training.module import DistillationModule
from layerstill.training.sides import sides_of
from layerstill.training.teacher_cache import Contents, TeacherCache
from tests.other_tokenizer import other_model, other_tokenizer
from tests.tiny import TAGS, no_dropout, tagged_sentences, tiny_model, tiny_tokenizer

TEXTS = [
    ("good film the plot was great",),
    ("bad",),
    ("we very awful scene but the actor is fine",),
    ("poor plot they",),
    ("not great not good",),
]
WHOLE_TEXTS = ("kd", "pkd", "rail-kd-l", "rail-kd-c", "rkd")
APART = Readers(other_tokenizer(), tiny_tokenizer(), apart=True)


def split_of(head: Head) -> Split:
    if not head.per_token:
        return Split(TEXTS, [0, 1, 2, 0, 1])
    sentences = tagged_sentences(5, seed=3)
    return Split([tuple(words) for words, _ in sentences], [[TAGS.index(t) for t in tags] for _, tags in sentences])


def examples(readers: Readers, head: Head, longest: int = 40) -> list[dict]:
    return list(readers.encode(split_of(head), longest, head).dataset)


def module_for(recipe: Recipe | str, head: Head = Classes(), readers: Readers = APART, sets=()) -> DistillationModule:
    """Teacher BERT, student RoBERTa with other tokens (or BERT, where both read the same), in float64."""
    loaded = Recipe.load(recipe, sets) if isinstance(recipe, str) else recipe
    labels = len(TAGS) if head.per_token else 3
    teacher = tiny_model("bert", sharp=2.0, head=head, labels=labels, **no_dropout("bert")).double()
    family = "roberta" if readers.student.pad_token_id else "bert"
    source = other_model(family, head, labels=labels, **no_dropout(family)) if family == "roberta" else teacher
    torch.manual_seed(1)
    student = build_student(source.double(), 2, loaded.student, seed=0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.manual_seed(2)
    module = DistillationModule(student, teacher, loaded.stages[0], seed=0, head=head).double()
    module.clock.epoch, module.clock.epochs = 1, 2
    return module.train()


def values(module: DistillationModule, batches: list[dict], units: Tensor | None = None) -> dict[str, Tensor]:
    """Terms and gradients, added up over the micro-batches of one step."""
    module.zero_grad()
    found: dict[str, Tensor] = {}
    for batch in batches:
        out = module(units=units, **batch)
        out["loss"].backward()
        for name, term in out["terms"].items():
            found[name] = found.get(name, 0) + term.value.detach()
    return found | {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], rtol=1e-8, atol=1e-10) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


MIXUP = ("stages.0.view=mixup",)
WORDS = ("stages.0.objectives.states={signal: hidden_states, mapping: last, distance: mse, alignment: linear}",)
CASES = [(name, Classes(), ()) for name in WHOLE_TEXTS] + [
    ("kd", Classes(), MIXUP),
    ("rail-kd-l", Classes(), MIXUP),
    ("kd", Tokens(), ()),
    ("rail-kd-l", Tokens(), ()),
    ("kd", Tokens(), WORDS),
]
IDS = [f"{name} {head.word}{' more' * bool(sets)}" for name, head, sets in CASES]
each_case = pytest.mark.parametrize(("recipe", "head", "sets"), CASES, ids=IDS)


def test_an_example_is_the_same_on_both_sides_and_the_cache_knows_it_by_what_the_teacher_reads():
    batch = APART.collator(Classes())(examples(APART, Classes()))
    read = [
        tokenizer.batch_decode(batch[name], skip_special_tokens=True)
        for tokenizer, name in ((APART.student, "input_ids"), (APART.teacher, "teacher_input_ids"))
    ]
    assert [text.replace(" ##", "") for text in read[0]] == read[1] == [text for (text,) in TEXTS]
    assert batch["attention_mask"].sum(1).tolist() != batch["teacher_attention_mask"].sum(1).tolist()
    alone = encode(split_of(Classes()), tiny_tokenizer(), 40, Classes()).dataset
    assert batch["content"] == list(alone["content"])


@each_case
def test_more_padding_on_either_side_changes_nothing(recipe, head, sets):
    module, rows = module_for(recipe, head, sets=sets), examples(APART, head)
    batch = APART.collator(head)(rows)
    whole = values(module, [batch])
    for side in ("", "teacher_"):
        wide = dict(batch)
        for name in (f"{side}{n}" for n in ("input_ids", "attention_mask", "token_type_ids", "counted")):
            if name in wide:
                wide[name] = F.pad(wide[name], (0, 3), value=int(name == "input_ids"))
        if head.per_token and not side:
            wide["labels"] = F.pad(wide["labels"], (0, 3), value=-100)
        assert_same(whole, values(module, [wide]))


@pytest.mark.parametrize(("recipe", "head", "sets"), [c for c in CASES if c[2] != MIXUP and c[0] != "rkd"])
def test_parts_of_a_step_add_up_to_the_step(recipe, head, sets):
    module, rows, collate = module_for(recipe, head, sets=sets), examples(APART, head), APART.collator(head)
    whole, parts = collate(rows), [collate(rows[:2]), collate(rows[2:])]
    assert_same(values(module, [whole]), values(module, parts, module.count_units(whole)))


# RKD relates the rows of all processes, which talk to each other for it.
@pytest.mark.parametrize(("recipe", "head", "sets"), [case for case in CASES if case[0] != "rkd"])
def test_the_shares_of_two_processes_add_up_to_the_step(recipe, head, sets):
    module, rows = module_for(recipe, head, sets=sets), examples(APART, head)[:4]
    collate = ShareCollator(APART.collator(head))
    longest = max(rows, key=lambda row: row["length"])
    shares = [collate([*(rows[i] for i in share(4, 2, process)), longest]) for process in (0, 1)]
    idle = collate([longest])
    assert idle["idle"]
    assert not module.count_units(idle).any()
    whole = APART.collator(head)(rows)
    assert_same(values(module, [whole]), values(module, [*shares, idle], module.count_units(whole)))


@pytest.mark.parametrize(("recipe", "head", "sets"), [case for case in CASES if case[2] != MIXUP])
def test_a_cached_teacher_teaches_what_a_live_one_does(recipe, head, sets, tmp_path):
    module, encoded = module_for(recipe, head, sets=sets), APART.encode(split_of(head), 40, head)
    batch = APART.collator(head)(list(encoded.dataset))
    live = values(module, [batch])
    module.source.cache = TeacherCache(tmp_path, "teacher", Contents.of(module.objectives))
    new = module.source.cache.fill(
        encoded.for_teacher.dataset, module.source.ask, APART.teacher_collator(head), torch.device("cpu")
    )
    assert new == 5
    assert_same(live, values(module, [batch]), rtol=1e-4, atol=2e-5)  # the cache has 32 bits, and PKD's T^2 is 100


@each_case
def test_the_same_tokens_read_twice_are_what_they_are_read_once(recipe, head, sets):
    own = tiny_tokenizer()
    once, twice = Readers(own, own), Readers(own, own, apart=True)
    module = module_for(recipe, head, once, sets)
    batches = [readers.collator(head)(examples(readers, head)) for readers in (once, twice)]
    assert [sides_of(batch, head).apart for batch in batches] == [False, True]
    assert_same(values(module, [batches[0]]), values(module, [batches[1]]), rtol=1e-12, atol=1e-14)


def test_soft_targets_and_pooled_states_are_those_of_each_model_on_its_own_text():
    spec = {
        "soft": {"signal": "logits", "distance": "kl"},
        "mean": {"signal": {"hidden_states": {"pool": "mean"}}, "mapping": "last", "distance": "mse",
                 "alignment": {"linear": {"sides": "both", "width": 8}}},
    }  # fmt: skip
    recipe = Recipe.from_data({"stages": [{"epochs": 1, "learning_rate": 1, "objectives": spec}]})
    module = module_for(recipe)
    terms = module(**APART.collator(Classes())(examples(APART, Classes())))["terms"]
    soft, mean = [], []
    for (text,) in TEXTS:
        s, t = APART.student(text, return_tensors="pt"), APART.teacher(text, return_tensors="pt")
        ours = module.student(**s, output_hidden_states=True)
        theirs = module.teacher(**t, output_hidden_states=True)
        soft.append(F.kl_div(ours.logits.log_softmax(-1), theirs.logits.softmax(-1), reduction="sum"))
        aligner = module.terms_of_stage[1].aligner
        states = (model.hidden_states[-1][0].mean(0, keepdim=True) for model in (ours, theirs))
        here, there = (
            f(x, k) for f, x, k in zip((aligner.of_student, aligner.of_teacher), states, (2, 4), strict=True)
        )
        mean.append(F.mse_loss(here, there))
    torch.testing.assert_close(terms["soft"].value, torch.stack(soft).mean())
    torch.testing.assert_close(terms["mean"].value, torch.stack(mean).mean())


@pytest.mark.parametrize("longest", [40, 6])
def test_tags_are_compared_word_by_word_as_far_as_both_models_have_the_words(longest):
    head = Tokens()
    recipe = Recipe.from_data(
        {"stages": [{"epochs": 1, "learning_rate": 1, "objectives": {
            "task": {"signal": "labels"}, "soft": {"signal": "logits", "distance": "kl"}, "states": TOKENS}}]}
    )  # fmt: skip
    module = module_for(recipe, head)
    batch = APART.collator(head)(examples(APART, head, longest))
    terms = module(**batch)["terms"]
    found, states, kept, cut = [], [], 0, 0
    for words in split_of(head).texts:
        rows = []
        for tokenizer, model in ((APART.student, module.student), (APART.teacher, module.teacher)):
            tokens = tokenizer(
                list(words), is_split_into_words=True, truncation=True, max_length=longest, return_tensors="pt"
            )
            ids = tokens.word_ids()
            first = [i for i, word in enumerate(ids) if word is not None and word not in ids[:i]]
            out = model(**tokens, output_hidden_states=True)
            rows.append(torch.cat([out.logits[0, first], out.hidden_states[-1][0, first]], -1))
        common = min(map(len, rows))
        kept, cut = kept + common, cut + len(words) - common
        ours, theirs = (row[:common, : len(TAGS)] for row in rows)
        found.append(F.kl_div(ours.log_softmax(-1), theirs.softmax(-1), reduction="sum"))
        ours, theirs = (row[:common, len(TAGS) :] for row in rows)
        states.append((module.terms_of_stage[2].aligner.of_student(ours, 2) - theirs).square().sum())
    assert bool(cut) == (longest == 6)
    torch.testing.assert_close(terms["soft"].value, torch.stack(found).sum() / kept)
    torch.testing.assert_close(terms["states"].value, torch.stack(states).sum() / (kept * theirs.shape[1]))
    # Gold tags count wherever the student has the word.
    alone = Collator(APART.student, head)(list(encode(split_of(head), APART.student, longest, head).dataset))
    torch.testing.assert_close(terms["task"].value, module(**alone | {"teacher_input_ids": batch["teacher_input_ids"], "teacher_attention_mask": batch["teacher_attention_mask"], "teacher_counted": batch["teacher_counted"]})["terms"]["task"].value)  # fmt: skip


def test_words_that_one_of_them_has_cut_off_count_on_neither_side():
    head, split = Tokens(), split_of(Tokens())
    for ours, theirs in ((other_tokenizer(), tiny_tokenizer()), (tiny_tokenizer(), other_tokenizer())):
        rows = Readers(ours, theirs, apart=True).encode(split, 6, head).dataset
        alone = [map(sum, encode(split, tokenizer, 6, head).dataset["counted"]) for tokenizer in (ours, theirs)]
        common = [min(pair) for pair in zip(*alone, strict=True)]
        assert [sum(row) for row in rows["counted"]] == [sum(row) for row in rows["teacher_counted"]] == common
        assert max(map(len, split.texts)) > max(common)


def test_a_text_that_only_one_model_has_counts_for_that_one_alone():
    module = module_for("kd")
    rows = examples(APART, Classes())
    batch, without = (APART.collator(Classes())(rows) for _ in range(2))
    without["teacher_attention_mask"][4] = 0
    terms = module(**without)["terms"]
    torch.testing.assert_close(terms["task"].value, module(**batch)["terms"]["task"].value)
    four = {n: v[:4] for n, v in batch.items()}
    torch.testing.assert_close(terms["soft targets"].value, module(**four)["terms"]["soft targets"].value)


TOKENS = {"signal": "hidden_states", "mapping": "last", "distance": "mse", "alignment": "linear"}
POOLED = {**TOKENS, "signal": {"hidden_states": {"pool": "first"}}}


def test_what_compares_token_by_token_is_refused_where_tokens_differ():
    stage = {"epochs": 1, "learning_rate": 1, "objectives": {"states": TOKENS}}
    module = module_for(Recipe.from_data({"stages": [stage]}))
    with pytest.raises(UserError, match="objective 'states' compares token by token, and the batch has other tokens"):
        module(**APART.collator(Classes())(examples(APART, Classes())))


@pytest.mark.parametrize(
    ("objective", "head", "stays"),
    [
        (TOKENS, Classes(), False),
        (POOLED, Classes(), True),
        ({"signal": {"embeddings": {"pool": "mean"}}, "distance": "mse", "alignment": "linear"}, Classes(), True),
        ({"signal": "embeddings", "distance": "mse", "alignment": "linear"}, Classes(), False),
        ({"signal": "attention", "mapping": "last", "distance": "mse"}, Classes(), False),
        ({"signal": {"relation": {"of": "V-V", "heads": 4}}, "mapping": "last", "distance": "kl"}, Classes(), False),
        ({**POOLED, "alignment": "none", "relate": {"cosines": {"over": "batch"}}}, Classes(), True),
        ({**TOKENS, "alignment": "none", "relate": {"cosines": {"over": "tokens"}}}, Classes(), False),
        ({**POOLED, "alignment": "none", "mapping": "last", "relate": {"cosines": {"over": "layers"}}}, Classes(), True),
        ({**TOKENS, "alignment": "none", "target": "student"}, Classes(), True),
        ({"signal": "logits", "distance": "kl", "view": "mixup"}, Classes(), True),
        ({"signal": "logits", "distance": "kl"}, Tokens(), True),
        ({"signal": "logits", "distance": "kl", "view": "mixup"}, Tokens(), False),
        (TOKENS, Tokens(), True),
        ({**TOKENS, "padding": "included"}, Tokens(), False),
        ({"signal": "attention", "mapping": "last", "distance": "mse"}, Tokens(), False),
    ],
)  # fmt: skip
def test_what_is_left_out(objective, head, stays):
    objectives = {"soft": {"signal": "logits", "distance": "kl"}, "more": objective}
    recipe = Recipe.from_data({"stages": [{"epochs": 1, "learning_rate": 1, "objectives": objectives}]})
    reduced, lines = without_token_terms(recipe, head, "S")
    assert list(reduced.stages[0].objectives) == (["soft", "more"] if stays else ["soft"])
    assert (reduced is recipe) == stays == (not lines)
    assert all("stage 1: objective 'more' is left out, because" in line for line in lines)


def test_what_borrows_maps_goes_with_their_owner_and_an_empty_stage_goes_whole():
    reduced, lines = without_token_terms(Recipe.load("cr-ild"), Classes(), "S")
    assert [list(stage.objectives) for stage in reduced.stages] == [["soft targets"]]
    assert "objective 'consistent hidden states' is left out, because it uses the maps of 'hidden states'" in lines[2]
    assert lines[-1] == "stage 1 is left out, because nothing of the teacher is left in it"


def test_a_recipe_of_which_gold_labels_alone_would_stay_is_refused_with_recipes_that_work():
    objectives = {"task": {"signal": "labels"}, "states": TOKENS}
    recipe = Recipe.from_data({"name": "mine", "stages": [{"epochs": 1, "learning_rate": 1, "objectives": objectives}]})
    with pytest.raises(UserError, match="recipe mine: it compares token by token") as refused:
        without_token_terms(recipe, Classes(), "S")
    named = str(refused.value).split("use ")[1].split(", or a")[0].split(", ")
    assert {"kd", "pkd", "rail-kd-l", "rkd"} <= set(named)
    for name in named:
        assert without_token_terms(Recipe.load(name), Classes(), "S") == (Recipe.load(name), [])


def test_a_dropped_stage_leaves_its_share_of_the_length_to_the_others():
    """`best-pairs` without its stage of hidden states and attention trains as long as with it."""
    reduced, lines = without_token_terms(Recipe.load("best-pairs"), Classes(), "S")
    assert [stage.epochs for stage in reduced.stages] == ["auto"]
    assert "stage 1 is left out" in " ".join(lines)

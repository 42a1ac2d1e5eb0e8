"""What a refusal advises works: each command is refused, and with the advice taken it runs.

The table holds the refusals that name an option or a setting of a recipe, and can be had with a tiny model.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

from layerstill.heads import MultiLabel, Scores
from tests.other_tokenizer import save_other
from tests.tiny import save_tiny, tiny_config, tiny_tokenizer, write_csv

MOODS = ("bad", "fine", "good")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Teachers and data, good and odd ones."""
    folder = tmp_path_factory.mktemp("ways")
    save_tiny(folder / "teacher")
    save_tiny(folder / "decoder", "llama")
    save_tiny(folder / "one", labels=1, head=Scores())
    save_tiny(folder / "two", names=["lat", "lon"], head=Scores(), problem_type="regression")
    save_tiny(folder / "several", head=MultiLabel(), problem_type="multi_label_classification")
    save_other(folder / "other")
    AutoModelForQuestionAnswering.from_config(tiny_config("bert")).save_pretrained(folder / "answers")
    tiny_tokenizer().save_pretrained(folder / "answers")
    shutil.copytree(folder / "teacher", folder / "added")
    tokenizer = AutoTokenizer.from_pretrained(folder / "added")
    tokenizer.add_tokens(["<user>", "<url>"])
    tokenizer.save_pretrained(folder / "added")
    write_csv(folder / "texts.csv", 60)
    write_csv(folder / "pairs.csv", 60, two_texts=True)
    rows = [line.split(",") for line in (folder / "texts.csv").read_text("utf-8").splitlines()[1:]]
    text = [text for text, _ in rows]
    (folder / "alone.csv").write_text("text\n" + "\n".join(f"{t} we" for t in text) + "\n", "utf-8")
    (folder / "alone.txt").write_text("\n".join(f"{t} we" for t in text) + "\n", "utf-8")
    marks = "".join(f"{t},{','.join(str(int(m == label)) for m in MOODS)}\n" for t, label in rows)
    (folder / "marks.csv").write_text("text,bad,fine,good\n" + marks, "utf-8")
    said = [{"text": t, "label": y, "said": {m: 0.8 if m == y else 0.1 for m in MOODS}} for t, y in rows]
    (folder / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said), "utf-8")
    (folder / "scores.csv").write_text("text,label\n" + "".join(f"{t},{i % 2}\n" for i, t in enumerate(text)), "utf-8")
    targets = "".join(f"{t},{i % 3},{i % 5}\n" for i, t in enumerate(text))
    (folder / "targets.csv").write_text("text,lat,lon\n" + targets, "utf-8")
    names = [f"intent {i}" for i in range(30)]
    (folder / "intents.csv").write_text(
        "text,label\n" + "".join(f"good {text[i]},{n}\n" for i, n in enumerate(names)), "utf-8"
    )
    (folder / "more.csv").write_text(
        "text,label\n" + "".join(f"bad {text[i]},{n}\n" for i, n in enumerate(names)), "utf-8"
    )
    return folder


@dataclass(frozen=True)
class Way:
    """A command that is refused with `said`, and the words that its advice adds, or another command."""

    command: str
    said: str
    add: str = ""
    instead: str = ""


RUN = "--max-steps 1 --max-length 16 --output out"
TEXTS = "--task classification --data texts.csv"
STUDENT = f"distill teacher {TEXTS} --student-layers 2 {RUN}"
WAYS = {
    "relation heads": Way(
        f"{STUDENT} --recipe minilmv2 --set student.hidden_size=36",
        r"set stages\.N\.objectives\.queries\.signal\.relation\.heads, N being its stage, to one of 1, 2, 3, 4, 6, 12$",
        add=" ".join(f"--set stages.0.objectives.{n}.signal.relation.heads=12" for n in ("queries", "keys", "values")),
    ),
    "as many attention heads": Way(
        f"{STUDENT} --recipe att-mse --set student.hidden_size=24 --set student.attention_heads=2",
        "set student.attention_heads to 4, or compare",
        add="--set student.attention_heads=4",
    ),
    "a width for as many heads": Way(
        f"{STUDENT} --recipe att-mse --set student.hidden_size=18 --set student.attention_heads=2",
        "set student.attention_heads to 4 and student.hidden_size to a multiple of 4",
        add="--set student.attention_heads=4 --set student.hidden_size=20",
    ),
    "relations in place of maps": Way(
        f"{STUDENT} --recipe att-mse --set student.hidden_size=24 --set student.attention_heads=2",
        r"set stages\.N\.objectives\.attention\.signal to (\{.*\}), N being its stage",
        add=r"--set 'stages.0.objectives.attention.signal=\1'",
    ),
    "another width": Way(
        f"{STUDENT} --recipe rkd --set student.hidden_size=24 --set stages.0.objectives.distances.relate=null",
        "set alignment: linear",
        add="--set stages.0.objectives.distances.alignment=linear",
    ),
    "uneven layers": Way(
        f"distill teacher {TEXTS} --student-layers 3 {RUN} --recipe tinybert",
        "`uniform: {uneven: spread}`",
        add="--set 'stages.0.objectives.attention scores.mapping.uniform.uneven=spread' "
        "--set 'stages.0.objectives.hidden states.mapping.uniform.uneven=spread'",
    ),
    "initialisation": Way(
        f"distill teacher {TEXTS} --student-layers 3 {RUN} --recipe kd --init every-k", "spread", add="--init spread"
    ),
    "final layer": Way(
        f"distill teacher {TEXTS} --student-layers 1 {RUN} --recipe rail-kd-l",
        "final_layer: included",
        add="--set 'stages.0.objectives.random layers.mapping.random.final_layer=included'",
    ),
    "mixup alone": Way(f"{STUDENT} --recipe cr-ild --batch-size 1", "use a larger batch_size", add="--batch-size 4"),
    "split batches": Way(
        f"{STUDENT} --recipe rkd --set stages.0.accumulation=2",
        "set accumulation: 1",
        add="--set stages.0.accumulation=1",
    ),
    "patience": Way(
        f"{STUDENT} --recipe kd --set stages.0.patience=2",
        "patience needs select: best",
        add="--set stages.0.select=best",
    ),
    "first token of a decoder": Way(
        f"distill decoder {TEXTS} --student-layers 2 {RUN} --recipe pkd",
        "use pool: last or pool: mean",
        add="--set stages.0.objectives.patience.signal.hidden_states.pool=last",
    ),
    "head widths": Way(
        f"{STUDENT} --recipe kd --set student.hidden_size=30 --set student.attention_heads=4",
        "hidden sizes that keep the teacher's head width: 12, 24, 36, 48",
        add="--set student.hidden_size=24 --set student.attention_heads=2",
    ),
    "wide heads": Way(
        f"{STUDENT} --recipe kd --set student.hidden_size=48 --set student.attention_heads=2",
        "use 4 heads or more",
        add="--set student.attention_heads=4",
    ),
    "vocabulary": Way(
        f"{STUDENT} --recipe kd --set student.vocabulary=1",
        r"choose (\d+) to \d+, or train",
        add=r"--set student.vocabulary=\1",
    ),
    "supplementary": Way(
        f"{STUDENT} --recipe kd --supplementary alone.txt",
        "give --unlabelled in its place",
        instead=f"{STUDENT} --recipe kd --unlabelled alone.txt",
    ),
    "gold labels of supplementary": Way(
        f"{STUDENT} --recipe kd --supplementary alone.txt --set stages.0.data=supplementary",
        r"leave it out with --set stages\.N\.objectives\.task=null",
        add="--set stages.0.objectives.task=null",
    ),
    "texts alone": Way(
        STUDENT.replace("texts.csv", "alone.csv"),
        "texts without labels are for --unlabelled, beside --data with some that have them",
        instead=f"{STUDENT} --recipe kd --unlabelled alone.csv",
    ),
    "probabilities": Way(
        f"distill {TEXTS} --label-column said --student-layers 2 {RUN} --teacher-probabilities said --init-from teacher "
        "--recipe kd".replace("texts.csv", "said.jsonl"),
        "look like probabilities of classes, which are for --teacher-probabilities said",
        instead=f"distill {TEXTS.replace('texts.csv', 'said.jsonl')} --student-layers 2 {RUN} "
        "--teacher-probabilities said --init-from teacher --recipe kd",
    ),
    "probabilities and hidden states": Way(
        f"distill {TEXTS.replace('texts.csv', 'said.jsonl')} --student-layers 2 {RUN} --teacher-probabilities said "
        "--init-from teacher",
        "use a recipe with soft targets only, such as kd",
        add="--recipe kd",
    ),
    "one of several labels": Way(
        f"distill teacher --task classification --data marks.csv --label-column good --student-layers 2 {RUN}",
        "it is --task multilabel --label-column bad,fine,good",
        instead=f"distill several --task multilabel --data marks.csv --label-column bad,fine,good --student-layers 2 "
        f"{RUN}",
    ),
    "several columns": Way(
        f"finetune teacher --task classification --data marks.csv --label-column bad,fine,good {RUN}",
        "a column for each label is --task multilabel",
        instead=f"finetune teacher --task multilabel --data marks.csv --label-column bad,fine,good {RUN}",
    ),
    "one output": Way(
        f"distill one --task classification --data scores.csv --student-layers 2 {RUN}",
        r"its head gives scores, and the task has one class per text; use --task regression, or fine-tune it on this "
        r"task first: layerstill finetune$",
        instead=f"distill one --task regression --data scores.csv --student-layers 2 {RUN}",
    ),
    "answers": Way(
        f"distill answers {TEXTS} --student-layers 2 {RUN}",
        "fine-tune its encoder on one of them: layerstill finetune",
        instead=f"finetune answers {TEXTS} {RUN}",
    ),
    "other tokens": Way(
        f"{STUDENT} --recipe kd --init-from other",
        "or give it as --student, which brings its own",
        instead=f"{STUDENT} --recipe kd --student other",
    ),
    "classes with one example": Way(
        f"finetune teacher --task classification --data intents.csv {RUN}",
        "if there really are so many classes, give --dev",
        add="--dev more.csv",
    ),
    "several targets": Way(
        f"distill two --task regression --data targets.csv --label-column lat --student-layers 2 {RUN}",
        "name a column for each, --label-column A,B",
        add="--label-column lat,lon",
    ),
    "few samples": Way(
        f"finetune teacher {TEXTS} --few-samples 3 {RUN}", "--regime stratified=true", add="--regime stratified=true"
    ),
    "class weights": Way(
        f"{STUDENT} --set stages.0.class_weights=balanced",
        "it is not part of a recipe; give --class-weights",
        instead=f"{STUDENT} --class-weights balanced",
    ),
    "long texts": Way(STUDENT.replace("16", "600"), r"use (\d+) or less", add=r"--max-length \1"),
    "rates without a teacher": Way(
        f"distill {TEXTS.replace('texts.csv', 'said.jsonl')} --student-layers 2 {RUN} --teacher-probabilities said "
        "--init-from teacher --recipe kd --learning-rate auto",
        "give a number, such as 3e-4",
        add="--learning-rate 3e-4",
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_the_way_out_of_a_refusal_works(home, call, tmp_path, monkeypatch, name):
    monkeypatch.chdir(home)
    way = WAYS[name]
    out = tmp_path / "out"
    status, _, err = call(way.command.replace("--output out", f"--output {out}"))
    found = re.search(way.said, err.strip())
    assert (status, bool(found)) == (2, True), err
    assert not out.exists()
    command = way.instead or f"{way.command} {found.expand(way.add)}"
    status, _, err = call(command.replace("--output out", f"--output {out}"))
    assert status == 0, err
    assert (out / "result.json").is_file()


def test_a_tokenizer_with_more_tokens_than_embeddings_is_resized_as_the_message_says(home, call, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    command = STUDENT.replace("teacher", "added").replace("--output out", f"--output {tmp_path / 'out'}")
    status, _, err = call(command)
    known = AutoModelForSequenceClassification.from_pretrained("teacher").config.vocab_size
    assert status == 2
    assert f"its tokenizer has {known + 2} tokens and the model {known} embeddings: '<user>', '<url>' were added" in err
    number = int(re.search(r"model\.resize_token_embeddings\((\d+)\)", err).group(1))
    model = AutoModelForSequenceClassification.from_pretrained("added")
    torch.manual_seed(0)
    model.resize_token_embeddings(number)
    model.save_pretrained("added")
    status, _, err = call(command)
    assert status == 0, err
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert student.config.vocab_size == number

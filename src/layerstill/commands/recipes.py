"""`layerstill recipes`: list, show, check, schema."""

import json
from typing import Annotated

import typer

from layerstill.commands.help import Verb, Verbs, with_help_all
from layerstill.commands.known import complete_recipe, known_recipe
from layerstill.commands.recipe_options import Set

recipes_app = typer.Typer(cls=Verbs, no_args_is_help=True, help="List, show and check recipes: methods as YAML files.")
RecipeFile = Annotated[
    str,
    typer.Argument(help="A recipe's name or file.", autocompletion=complete_recipe, callback=known_recipe),
]


@recipes_app.command("list", cls=Verb)
@with_help_all
def recipes_list() -> None:
    """The recipes that come with layerstill, one line each.

    Example:
        layerstill recipes list
    """
    from layerstill.names import shipped_recipes
    from layerstill.recipe_files import recipe_text

    for name in shipped_recipes():
        first = recipe_text(name).split("\n")[0].removeprefix("# ")
        print(f"{name:18} {first}")


@recipes_app.command("show", cls=Verb)
@with_help_all
def recipes_show(name: RecipeFile) -> None:
    """Print a recipe as it is written, ready to be copied and changed.

    Example:
        layerstill recipes show rail-kd-l > mine.yaml
    """
    from layerstill.recipe_files import recipe_text

    print(recipe_text(name), end="")


@recipes_app.command("check", cls=Verb)
@with_help_all
def recipes_check(file: RecipeFile, set_: Set = None) -> None:
    """Check a recipe file; print it resolved, without what is at its default.

    Example:
        layerstill recipes check mine.yaml --set stages.0.epochs=3
    """
    from layerstill.recipe import Recipe

    recipe = Recipe.load(file, tuple(set_ or ()))
    print(f"# {file}: a valid recipe, hash {recipe.hash}\n{recipe.to_yaml()}", end="")


@recipes_app.command("schema", cls=Verb)
@with_help_all
def recipes_schema() -> None:
    """Print the JSON schema of recipe files, for editors that complete and check YAML.

    Example:
        layerstill recipes schema > recipe.schema.json
    """
    from layerstill.recipe import recipe_json_schema

    print(json.dumps(recipe_json_schema(), indent=2))

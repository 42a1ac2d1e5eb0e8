"""Names of tasks and recipes where options take them: completed by the shell, and refused before torch is imported."""

from layerstill.names import refuse_unknown_recipe, refuse_unknown_task, shipped_recipes, task_names


def complete_task(incomplete: str) -> list[str]:
    """The tasks that begin so."""
    return [name for name in task_names() if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """The shipped recipes that begin so."""
    return [name for name in shipped_recipes() if name.startswith(incomplete)]


def known_task(name: str | None) -> str | None:
    """The value of `--task`, if it was given; UserError for another."""
    if name is not None:
        refuse_unknown_task(name)
    return name


def known_recipe(name: str | None) -> str | None:
    """A recipe's name or file; UserError for what can be neither."""
    if name is not None:
        refuse_unknown_recipe(name)
    return name

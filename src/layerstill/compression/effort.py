"""What `compress` tries: how deep students are, which starts, rates and recipes compete, and for how long."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from layerstill.errors import UserError, nearest
from layerstill.names import default_recipe
from layerstill.recipe import Recipe


@dataclass(frozen=True)
class Effort:
    """How much is spent."""

    starts: tuple[str, ...]
    """Initialisations that compete."""
    rates: tuple[float, ...]
    """Learning rates that compete, as multiples of the default recipe's."""
    recipes: tuple[str, ...]
    rungs: tuple[float, ...]
    """How long a trial is, as shares of a student's training; after each rung the better half goes on."""
    length: float
    """Of a student's training, as a multiple of what the recipe takes by itself."""
    slimmer: bool = False
    """Whether a student with half of the feed-forward units is trained, too."""
    narrower: bool = False
    """Whether a student of half the width is trained, too."""

    @property
    def trials(self) -> int:
        """How many candidates compete."""
        return len(self.starts) * len(self.rates) * len(self.recipes)


EFFORTS = {
    "quick": Effort(("spread",), (1,), ("best",), (), 0.4),
    "normal": Effort(("spread", "first-k"), (0.5, 1), ("best",), (0.06, 0.2), 1, slimmer=True),
    "thorough": Effort(
        starts=("spread", "first-k", "last-k"),
        rates=(0.5, 1, 2),
        recipes=("best", "kd"),
        rungs=(0.05, 0.15, 0.4),
        length=3,
        slimmer=True,
        narrower=True,
    ),
}


def effort_named(name: str) -> Effort:
    """An effort by its name; UserError for another."""
    if name not in EFFORTS:
        raise UserError(f"--effort {name}: {nearest(name, EFFORTS)}")
    return EFFORTS[name]


def ladder_of(layers: int) -> list[int]:
    """Depths of the students of a teacher with so many layers, the deepest first: for 6 layers 4, 3 and 2; for 12 6, 4
    and 3. UserError for a teacher of one layer."""
    if layers < 2:
        raise UserError(
            "compress: the teacher has 1 layer, so there is none to leave out; make it narrower with "
            "`layerstill distill --set student.hidden_size=N`, or quantise it with `layerstill export --int8`"
        )
    parts = (2 / 3, 1 / 2, 1 / 3) if layers < 12 else (1 / 2, 1 / 3, 1 / 4)
    depths = {max(round(layers * part), 1) for part in parts}
    return sorted(depths - {layers}, reverse=True)


@dataclass(frozen=True)
class Candidate:
    """One way to train the students."""

    recipe: str
    start: str
    rate: float
    """As a multiple of the default recipe's learning rate: a paper's own is for its number of updates."""

    @property
    def name(self) -> str:
        """What tables call it; also the name of its folder."""
        return f"{self.recipe}, {self.start}, rate x{self.rate:g}"

    def resolved(self, overrides: tuple[str, ...] = ()) -> Recipe:
        """Its recipe."""
        recipe = Recipe.load(self.recipe, (f'student.initialisation="{self.start}"', *overrides))
        rate = self.rate * Recipe.load("best").stages[-1].learning_rate
        stages = [stage.model_copy(update={"learning_rate": rate}) for stage in recipe.stages]
        data: dict[str, Any] = {**dict(recipe), "stages": stages}
        return Recipe.from_data(data, "compress")


def candidates_of(effort: Effort, paired: bool = False) -> Iterator[Candidate]:
    """Everything that competes under an effort, the likeliest first: of equal scores the first one wins.

    `paired`: examples have two texts, for which `best` is another recipe.
    """
    for recipe in (default_recipe(paired) if name == "best" else name for name in effort.recipes):
        for start in effort.starts:
            for rate in sorted(effort.rates, key=lambda r: (r != 1, r)):
                yield Candidate(recipe, start, rate)

"""Recipes: a published method, or yours, as stages with objectives; strict, and the same in YAML and Python."""

import hashlib
import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import (
    ConfigDict,
    Field,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)

from layerstill.errors import UserError, nearest
from layerstill.knowledge.objective import Objective
from layerstill.knowledge.views import VIEWS, Clean, View
from layerstill.recipe_files import recipe_source
from layerstill.schema import NonNegative, OneOf, Positive, Spec, Words, named_words, problems
from layerstill.students.spec import StudentSpec
from layerstill.yaml_files import override, parse_yaml

LONGEST_NAME = 100
SpecType = TypeVar("SpecType", bound=Spec)
_Passes = Annotated[Positive, Field(le=1_000_000)]
_PASSES: TypeAdapter[float] = TypeAdapter(_Passes, config=ConfigDict(strict=True))


_AUTOMATIC = re.compile(r"(?:([1-9][0-9]?)/([1-9][0-9]?) )?auto")


def _length(value: Any, handler: Any) -> Any:
    # By hand, because a union would say of a wrong number that it is not the word, either.
    if isinstance(value, str) and (found := _AUTOMATIC.fullmatch(value)):
        if found[1] and int(found[1]) > int(found[2]):
            raise ValueError(f"{value!r}: a share of the automatic length is at most 1")
        return value
    return _PASSES.validate_python(value)


Length = Annotated[
    _Passes | Annotated[str, Field(pattern=f"^{_AUTOMATIC.pattern}$")],
    WrapValidator(_length),
]
"""A number of epochs, `auto`, or a share of that: `3/4 auto`."""


def automatic_length(share: Fraction) -> str:
    """The word for a share of the automatic length, of at most 1."""
    share = min(share, Fraction(1)).limit_denominator(99)
    return "auto" if share == 1 else f"{share} auto"


class Optimiser(Spec):
    """AdamW and its learning-rate schedule."""

    weight_decay: NonNegative = 0.01
    """Not applied to biases and normalisation."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the second moment."""
    epsilon: Positive = 1e-8
    """Added to the denominator."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the stage's steps in which the learning rate rises from 0."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """What the learning rate does after the warm-up."""
    clip: NonNegative = 1.0
    """Largest norm of the gradient; 0 for no clipping."""


class Stage(Spec):
    """One training run over the data: a weighted sum of objectives."""

    part_of_recipe: ClassVar[bool] = True
    data: Literal["task", "supplementary"] = "task"
    """What is trained on: the task's examples, or the texts of --supplementary, which have no labels."""
    view: Annotated[Any, OneOf("view", View, VIEWS)] = Clean()
    """What the student is fed by every objective that does not say so itself."""
    epochs: Length
    """Passes over the training data; `auto`: as many as suit the number of examples, `3/4 auto`: a share of these."""
    learning_rate: Positive
    """Peak learning rate."""
    batch_size: Annotated[PositiveInt, Field(le=1_000_000)] = 32
    """Examples in one optimiser step."""
    accumulation: PositiveInt = 1
    """Micro-batches that make up one optimiser step; batch_size is divided by it."""
    optimiser: Optimiser = Optimiser()
    """AdamW's settings."""
    select: Literal["last", "best"] = "last"
    """Keep the last weights, or the best of the dev evaluations made after each epoch."""
    patience: PositiveInt | None = None
    """With select: best, stop after this many epochs without improvement."""
    evaluate: Literal["end", "epoch", "objectives"] = "end"
    """Score the dev set once at the end, or after every epoch too (always so with select: best); `objectives`: after
    every epoch, with the value of every objective on dev and on as many training examples."""
    objectives: dict[str, Objective] = Field(min_length=1)
    """The terms, by name."""

    @field_validator("objectives")
    @classmethod
    def _names(cls, value: dict[str, Objective]) -> dict[str, Objective]:
        for name, objective in value.items():
            if not name or "." in name or "/" in name:
                raise ValueError(f"objective name {name!r} must not be empty and must not contain '.' or '/'")
            if not name.isprintable() or len(name) > LONGEST_NAME:
                raise ValueError(f"objective name {name[:LONGEST_NAME]!r} must be at most 100 printable characters")
            if (other := objective.alignment.borrows) is not None:
                if other == name or other not in value:
                    others = [n for n in value if n != name]
                    raise ValueError(
                        f"{name!r} uses the alignment of unknown objective {other!r}: {nearest(other, others)}"
                    )
                alignment = value[other].alignment
                if not alignment.maps_anything or alignment.borrows is not None:
                    raise ValueError(f"{name!r} uses the alignment of {other!r}, which has none of its own")
        if all(objective.weight.always_zero for objective in value.values()):
            raise ValueError("every weight is 0 throughout the stage, so nothing would be learnt")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Stage":
        if self.patience and self.select == "last":
            raise ValueError("patience needs select: best, which decides what counts as an improvement")
        if self.batch_size % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} does not divide batch_size {self.batch_size}")
        if self.mixes and self.batch_size == self.accumulation:
            raise ValueError(
                f"mixup mixes the examples of a micro-batch, and batch_size {self.batch_size} / accumulation "
                f"{self.accumulation} leaves one in each; use a larger batch_size or a smaller accumulation"
            )
        if self.accumulation > 1:
            try:
                self.refuse_split_batches()
            except UserError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def share(self) -> Fraction | None:
        """Of the automatic length, that it trains for; None for a number of epochs."""
        if not isinstance(self.epochs, str):
            return None
        found = _AUTOMATIC.fullmatch(self.epochs)
        assert found is not None
        return Fraction(int(found[1]), int(found[2])) if found[1] else Fraction(1)

    @property
    def automatic(self) -> float | None:
        """The same as a number."""
        return None if self.share is None else float(self.share)

    @property
    def hiding(self) -> Any:
        """The view that hides words from all of its objectives; None if none does."""
        first = next(iter(self.viewed().values())).view
        return first if first is not None and first.hides else None

    @model_validator(mode="after")
    def _hides_from_all(self) -> "Stage":
        views = {name: objective.view for name, objective in self.viewed().items()}
        hiding = {name: view for name, view in views.items() if view is not None and view.hides}
        if hiding and len(set(map(repr, views.values()))) > 1:
            (name, view), *_ = hiding.items()
            other = next(other for other in views if views[other] != view)
            raise ValueError(
                f"words are hidden from {name!r} and not, or otherwise, from {other!r}; set view: masked for the stage"
            )
        return self

    def refuse_split_batches(self) -> None:
        """UserError if an objective takes the examples of a whole step at once, so that accumulation is not for it."""
        for name, objective in self.objectives.items():
            if objective.gathers:
                what = "relates the examples of a batch to each other" if objective.over_batch else "weighs whole steps"
                what = "remembers whole steps" if objective.remembers else what
                raise UserError(f"objective {name!r} {what}, and accumulation splits batches; set accumulation: 1")
            if objective.padding == "included":
                raise UserError(
                    f"objective {name!r} counts padding, which differs between the micro-batches of accumulation; "
                    "set accumulation: 1, or padding: excluded"
                )

    @model_validator(mode="after")
    def _knows_its_data(self) -> "Stage":
        if self.data == "task":
            return self
        for name, objective in self.objectives.items():
            if objective.signal.gold:
                raise ValueError(
                    f"objective {name!r} compares with gold labels, and data: supplementary has none; leave it out "
                    f"with --set {quote(f'stages.N.objectives.{name}=null')}, N being this stage's number"
                )
        if self.select == "best" or self.evaluate != "end":
            word = "select: best" if self.select == "best" else f"evaluate: {self.evaluate}"
            raise ValueError(f"{word} scores the task while data: supplementary is trained on; leave it out")
        return self

    @property
    def takes_unlabelled(self) -> bool:
        """Whether texts without labels can join its training examples: something else than gold labels teaches it."""
        return self.data == "task" and any(not objective.signal.gold for objective in self.objectives.values())

    def viewed(self) -> dict[str, Objective]:
        """The objectives, each with the view that it is fed."""
        return {
            name: objective if objective.view else objective.model_copy(update={"view": self.view})
            for name, objective in self.objectives.items()
        }

    def taught(self) -> dict[str, Objective]:
        """Those of `viewed` that compare with a teacher."""
        return {name: o for name, o in self.viewed().items() if not (o.consistent or o.signal.gold)}

    @property
    def beyond_logits(self) -> bool:
        """Whether any objective looks at more of a teacher than its logits on whole texts."""
        return any(o.mixes or not o.signal.of_head for o in self.taught().values())

    @property
    def mixes(self) -> bool:
        """Whether any objective is fed mixed examples."""
        return any(objective.mixes for objective in self.viewed().values())


class Recipe(Spec):
    """A method: how the student starts and the stages that train it."""

    part_of_recipe: ClassVar[bool] = True
    name: str = ""
    """What the method is called in results; without it, the name of the file."""
    student: StudentSpec = StudentSpec()
    """How the student starts."""
    stages: list[Stage] = Field(min_length=1)
    """What is trained, one after the other."""

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not value.isprintable() or len(value) > LONGEST_NAME or {"/", "\\"} & set(value) or value.startswith("."):
            raise ValueError(
                f"recipe name {value[:LONGEST_NAME]!r} must be at most {LONGEST_NAME} printable characters, "
                "without '/' and '\\', and not begin with '.'"
            )
        return value

    @property
    def needs_teacher(self) -> bool:
        """Whether any objective looks at the teacher."""
        return any(stage.taught() for stage in self.stages)

    @property
    def supplementary_stages(self) -> list[int]:
        """Numbers, from 1, of the stages that train on supplementary texts."""
        return [number for number, stage in enumerate(self.stages, 1) if stage.data == "supplementary"]

    def agree_on_supplementary(self, given: bool) -> None:
        """UserError if supplementary texts are wanted and not given, or given and not wanted."""
        if self.supplementary_stages and not given:
            numbers = " and ".join(map(str, self.supplementary_stages))
            raise UserError(
                f"recipe {self.name}: stage {numbers} trains on supplementary texts; give --supplementary FILE or "
                "--supplementary mnli=FOLDER, or set data: task there"
            )
        if given and not self.supplementary_stages:
            raise UserError(
                f"--supplementary: no stage of recipe {self.name} trains on such texts; to add them to the training "
                "examples give --unlabelled in its place"
            )

    def refuse_unlabelled(self, option: str) -> None:
        """UserError that begins with `option` if no stage can learn from texts without labels."""
        if not any(stage.takes_unlabelled for stage in self.stages):
            raise UserError(
                f"{option}: no stage of recipe {self.name} learns the task from anything but gold labels, which these "
                "texts do not have; use a recipe with soft targets, such as kd"
            )

    def refuse_beyond_logits(self, option: str) -> None:
        """UserError that begins with `option`, which gives no more than logits on training texts, for other terms."""
        if not self.needs_teacher:
            raise UserError(f"{option}: recipe {self.name} uses no teacher; use one with soft targets, such as kd")
        looks = {name: o for stage in self.stages for name, o in stage.taught().items()}
        wrong = [
            f"{n!r} (mixed inputs)" if o.signal.of_head else repr(n)
            for n, o in looks.items()
            if o.mixes or not o.signal.of_head
        ]
        if wrong:
            raise UserError(
                f"{option}: the terms {', '.join(wrong)} of recipe {self.name} look at more of a teacher than its "
                "probabilities; give a teacher, or use a recipe with soft targets only, such as kd"
            )
        for number, stage in enumerate(self.stages, 1):
            if stage.data == "supplementary" and stage.taught():
                raise UserError(
                    f"{option}: stage {number} of recipe {self.name} asks a teacher about supplementary texts; give a "
                    "teacher, or set data: task there"
                )
        self._refuse_objectives_on_dev(option)

    def refuse_without_soft_targets(self, option: str) -> None:
        """UserError that begins with `option`, which averages the logits of several teachers on whole texts, for a
        recipe that compares none, or those of mixed inputs."""
        looks = {name: o for s in self.stages for name, o in s.taught().items() if o.signal.of_head}
        if not looks:
            raise UserError(
                f"{option}: recipe {self.name} compares no logits, and they are all that several teachers can have a "
                "mean of; use a recipe with soft targets, such as best or kd"
            )
        if mixed := [name for name, o in looks.items() if o.mixes]:
            raise UserError(
                f"{option}: term {mixed[0]!r} of recipe {self.name} compares logits of mixed inputs, and several "
                "teachers are asked about whole texts; use a recipe without mixup, such as best or kd"
            )
        self._refuse_objectives_on_dev(option)

    def _refuse_objectives_on_dev(self, option: str) -> None:
        for number, stage in enumerate(self.stages, 1):
            if stage.evaluate == "objectives":
                raise UserError(
                    f"{option}: stage {number} of recipe {self.name} evaluates its objectives on dev, for which there "
                    f"are no such answers; --set stages.{number - 1}.evaluate=epoch"
                )

    @classmethod
    def load(cls, name: str | Path, overrides: tuple[str, ...] = (), words: Words = ()) -> "Recipe":
        """A shipped recipe by name, or a YAML file by path; `overrides` are `dotted.path=value` strings.

        `words` are classes from outside that the file may name: a mapping by name, or classes alone, which are called
        after themselves (`MyMapping` as `my_mapping`). A file never imports code, so they must be handed over.
        """
        text, where = recipe_source(str(name))
        data = parse_yaml(text, where)
        for setting in overrides:
            override(data, setting, removes="objectives")
        recipe = cls.from_data(data, where, words)
        return recipe if recipe.name else recipe.model_copy(update={"name": Path(name).name.removesuffix(".yaml")})

    @classmethod
    def from_data(cls, data: Any, where: str = "recipe", words: Words = ()) -> "Recipe":
        """Check plain data; UserError with the dotted path of everything that is wrong. `words` as in `load`."""
        if not isinstance(data, dict):
            raise UserError(f"{where}: a recipe is a mapping with the key 'stages', got {type(data).__name__}")
        return validated(cls, data, where, words)

    def to_data(self) -> dict[str, Any]:
        """Plain data, without what is at its default."""
        return json.loads(self.model_dump_json(exclude_defaults=True))

    def to_yaml(self) -> str:
        """The recipe as a YAML file."""
        return yaml.safe_dump(self.to_data(), sort_keys=False, allow_unicode=True)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change when any resolved setting does (the name is none)."""
        full = json.dumps(self.model_dump(mode="json", exclude={"name"}), sort_keys=True)
        return hashlib.sha256(full.encode()).hexdigest()[:12]

    def with_epochs(self, epochs: Sequence[float | None]) -> "Recipe":
        """The recipe with these epochs, stage by stage; None leaves a stage as it is."""
        changed = [{} if length is None else {"epochs": length} for length in epochs]
        stages = [{**dict(stage), **change} for stage, change in zip(self.stages, changed, strict=True)]
        return Recipe.from_data({**dict(self), "stages": stages})

    def limited(
        self, epochs: float | Literal["auto"] | None, batch_size: int | None, learning_rate: float | None
    ) -> "Recipe":
        """The recipe with these settings in every stage, where given."""
        given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
        given = {key: value for key, value in given.items() if value is not None}
        stages = [{**dict(stage), **given} for stage in self.stages]
        if epochs == "auto":  # which stages may have shares of already
            for stage, data in zip(self.stages, stages, strict=True):
                data["epochs"] = epochs if stage.automatic is None else stage.epochs
        data = {**dict(self), "stages": stages}
        return Recipe.from_data(data, ", ".join(f"--{name.replace('_', '-')}" for name in given) or "recipe")


def validated(spec: type[SpecType], data: Any, where: str, words: Words = ()) -> SpecType:
    """Plain data as a spec; UserError with the dotted path of everything that is wrong."""
    try:
        return spec.model_validate(data, context={"words": named_words(words)})
    except ValidationError as error:
        raise UserError(f"{where}: {problems(error)}") from None


def foreign_words(data: Any) -> list[str]:
    """Names of the words from outside, `module:Class`, in a recipe as plain data."""
    stages = data.get("stages") if isinstance(data, dict) else None
    found = []
    for stage in stages if isinstance(stages, list) else ():
        objectives = stage.get("objectives") if isinstance(stage, dict) else None
        for objective in objectives.values() if isinstance(objectives, dict) else ():
            for value in objective.values() if isinstance(objective, dict) else ():
                name = next(iter(value), None) if isinstance(value, dict) else value
                if isinstance(name, str) and ":" in name:
                    found.append(name)
    return list(dict.fromkeys(found))


def recipe_json_schema() -> dict[str, Any]:
    """JSON schema of recipe files, for editors."""
    return Recipe.model_json_schema()

"""The form that every word of a recipe has in YAML: strict models, and `name` or `{name: {settings}}` for a choice."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from reprlib import Repr
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, core_schema

from layerstill.errors import UserError, nearest

MOST_PROBLEMS = 5
RUN_OPTIONS = {
    "class_weights": "--class-weights",
    "weight_column": "--weight-column",
    "max_length": "--max-length",
    "max_steps": "--max-steps",
    "precision": "--precision",
    "fp16": "--precision fp16",
    "bf16": "--precision bf16",
    "seed": "--seed",
    "student_layers": "--student-layers",
    "num_layers": "--student-layers",
    "report_to": "--report-to",
}
"""Settings of a run that are looked for in recipes, and belong to the command."""
LONGEST_CLASS = 80
_REPR = Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80


def shown(value: Any) -> str:
    """A value as error messages show it: never longer than a line."""
    return _REPR.repr(value)


def problems(error: ValidationError) -> str:
    """Everything that is wrong with plain data in one line, each with its dotted path."""
    lines = [_line(e) for e in error.errors()]
    more = [f"and {len(lines) - MOST_PROBLEMS} more"] if len(lines) > MOST_PROBLEMS else []
    return "; ".join(lines[:MOST_PROBLEMS] + more)


def _line(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "top level"
    told = {"unknown_key", "one_of", "value_error", "missing"}
    got = "" if error["type"] in told else f", got {shown(error['input'])}"
    return f"{path}: {error['msg'].removeprefix('Value error, ')}{got}"


def _problem(kind: str, message: str) -> PydanticCustomError:
    # The message goes in as a value, so that braces in it are not taken for places to fill.
    return PydanticCustomError(kind, "{message}", {"message": message})


class Spec(BaseModel):
    """A word of the vocabulary with its settings: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
    part_of_recipe: ClassVar[bool] = False
    """Whether what people set here belongs to the command, so that messages say so."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    hint = nearest(key, cls.model_fields) if cls.model_fields else "it takes no settings"
                    if cls.part_of_recipe and key in RUN_OPTIONS:
                        hint = f"it is not part of a recipe; give {RUN_OPTIONS[key]}"
                    raise _problem("unknown_key", f"unknown key {shown(key)}: {hint}")
        return data


def fraction(value: Any) -> Any:
    """`"1/3"` as a float; anything else unchanged."""
    if isinstance(value, str) and "/" in value:
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError, OverflowError):
            pass
    return value


def _finite(value: float) -> float:
    if not abs(value) < float("inf"):
        raise ValueError("must be a finite number")
    return value


Number = Annotated[float, BeforeValidator(fraction), AfterValidator(_finite)]
"""A finite number; `1/3` may be written as a fraction."""
NonNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]


@dataclass(frozen=True)
class _Tagged:
    name: str
    settings: Any


def _settings(value: Any) -> Any:
    return ({} if value.settings is None else value.settings) if isinstance(value, _Tagged) else value


def word_name(word: type[Spec]) -> str:
    """`module:Class`: how files name a word that does not come with layerstill."""
    return f"{word.__module__}:{word.__qualname__}"


Words = Mapping[str, type[Spec]] | Iterable[type[Spec]]
"""Words from outside, with the names that YAML gives them or without."""


def named_words(words: Words) -> dict[str, type[Spec]]:
    """Words from outside by the names that YAML may give them.

    A mapping says the names; a class alone is called after itself, `MyMapping` as `my_mapping`. `module:Class` always
    works. UserError for what is no word, and for two of one name.
    """
    if isinstance(words, type | str) or not isinstance(words, Iterable):
        raise UserError(f"words: give a list of classes, or a mapping of names to classes, not {shown(words)}")
    given = list(words.items()) if isinstance(words, Mapping) else [(None, word) for word in words]
    named: dict[str, type[Spec]] = {}
    for own, word in given:
        if not isinstance(word, type) or not issubclass(word, Spec):
            raise UserError(f"words: {shown(word)} is not the class of a word (Signal, Mapping, Distance, ...)")
        name = own or re.sub(r"(?<!^)(?=[A-Z])", "_", word.__name__).lower()
        if named.setdefault(name, word) is not word:
            raise UserError(
                f"words: two are called {name!r}, {word_name(named[name])} and {word_name(word)}; give names of your "
                "own, words={'NAME': CLASS}"
            )
    return {**named, **{word_name(word): word for word in named.values()}}


class OneOf:
    """Annotation for a field that takes one of several specs, written `name` or `{name: {settings}}` in YAML.

    `choices` is the plain dictionary of the file that owns the concept. Any instance of `base` fits too: words from
    outside come as objects, or by name where the validation's context hands them over as `words`.
    """

    def __init__(self, noun: str, base: type[Spec], choices: Mapping[str, type[Spec]]) -> None:
        self.noun = noun
        self.base = base
        self.choices = choices
        self._names = {model: name for name, model in choices.items()}

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        self._options = {
            name: core_schema.no_info_before_validator_function(_settings, handler.generate_schema(model))
            for name, model in self.choices.items()
        }
        shipped = core_schema.no_info_before_validator_function(
            self._parse, core_schema.tagged_union_schema(dict(self._options), discriminator=self._name)
        )
        return core_schema.with_info_wrap_validator_function(
            self._foreign, shipped, serialization=core_schema.plain_serializer_function_ser_schema(self.short)
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        bare = [n for n, m in self.choices.items() if not any(f.is_required() for f in m.model_fields.values())]
        one_key = {
            "type": "object",
            "properties": {name: handler(option) for name, option in self._options.items()},
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
        }
        return {"anyOf": [{"enum": bare}, one_key] if bare else [one_key]}

    def _name(self, value: Any) -> str | None:
        return value.name if isinstance(value, _Tagged) else self._names.get(type(value))

    def _foreign(self, value: Any, shipped: Callable[[Any], Any], info: Any) -> Any:
        """A word from outside as an object or by name; everything else goes to the shipped ones."""
        if isinstance(value, self.base) and type(value) not in self._names:
            return value
        words = {n: w for n, w in (info.context or {}).get("words", {}).items() if issubclass(w, self.base)}
        name: Any = value if isinstance(value, str) else None
        settings: Any = {}
        if isinstance(value, dict) and len(value) == 1:
            ((name, settings),) = value.items()
        word = words.get(name) if isinstance(name, str) else None
        if name in self.choices and word not in (None, self.choices[name]):
            raise _problem(
                "one_of",
                f"{self.noun} {shown(name)} comes with layerstill and is handed over, too; give yours another name, "
                f"words={{'my_{name}': {word_name(word).split(':')[-1]}}}",
            )
        if not isinstance(name, str) or name in self.choices:
            return shipped(value)
        if word is None:
            self._refuse_unknown(name, [n for n in words if ":" not in n])
            return shipped(value)
        try:
            return word.model_validate({} if settings is None else settings, context=info.context)
        except ValidationError as error:
            raise _problem("one_of", f"{name}: {problems(error)}") from None

    def _refuse_unknown(self, name: str, words: list[str]) -> None:
        """Refuse a name that means a word from outside; what others mean is known where shipped words are read."""
        if ":" in name:
            own = name.rpartition(":")[2]
            plain = own if own.isidentifier() and len(own) <= LONGEST_CLASS else "CLASS"
            raise _problem(
                "one_of",
                f"{self.noun} {shown(name)} does not come with layerstill, and a file never imports code: import it "
                f"and hand it over, Recipe.load(FILE, words=[{plain}])",
            )
        if get_close_matches(name, words, n=1):
            raise _problem("one_of", f"unknown {self.noun} {shown(name)}: {nearest(name, [*words, *self.choices])}")

    def _parse(self, value: Any) -> Any:
        if type(value) in self._names:
            return value
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict) or len(value) != 1:
            known = ", ".join(self.choices)
            got = shown(value)
            raise _problem(
                "one_of", f"a {self.noun} is a name or one {{name: settings}} pair, got {got}; known: {known}"
            )
        (name, settings), *_ = value.items()
        if name not in self.choices:
            raise _problem("one_of", f"unknown {self.noun} {shown(name)}: {nearest(name, self.choices)}")
        return _Tagged(name, settings)

    def name_of(self, spec: Spec) -> str:
        """What files call a word: its short name, or `module:Class` if it comes from outside."""
        return self._names.get(type(spec)) or word_name(type(spec))

    def short(self, spec: Spec) -> str | dict[str, Any]:
        """The YAML form, leaving out settings at their defaults."""
        settings = spec.model_dump(exclude_defaults=True)
        name = self.name_of(spec)
        return {name: settings} if settings else name

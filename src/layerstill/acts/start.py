"""What a student is made of: the teacher, the model of `--init-from`, or that of `--student` with its own tokenizer."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from layerstill.data.encode import longest_text, usable_length
from layerstill.data.readers import Readers
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.families import depth_of, inputs_of
from layerstill.recipe import Recipe
from layerstill.training.model_files import is_blank
from layerstill.training.models import (
    adopt_padding,
    fingerprint,
    load_blank,
    load_config,
    load_for_finetuning,
    load_tokenizer,
    special_token_notices,
)


@dataclass(frozen=True)
class Start:
    """The model that a student is made of; the teacher if neither is given."""

    init_from: str | None = None
    """Another model with the teacher's tokenizer, which the student is cut from."""
    student: str | None = None
    """The student itself, before it is distilled: any model with its own depth, widths and tokenizer."""

    @classmethod
    def of(cls, init_from: str | Path | None, student: str | Path | None) -> "Start":
        """What the arguments of an act say; UserError if they say two things."""
        if init_from is not None and student is not None:
            raise UserError(
                f"--student {student} and --init-from {init_from}: both say what the student "
                "is made of; give one of them"
            )
        return cls(None if init_from is None else str(init_from), None if student is None else str(student))

    @property
    def name(self) -> str | None:
        """Folder or hub id; None for the teacher."""
        return self.student or self.init_from

    @property
    def whose(self) -> str:
        """In messages."""
        if self.name is None:
            return "the teacher"
        return f"the model of {'--init-from' if self.student is None else '--student'}"

    @property
    def fresh(self) -> bool:
        """Whether it is a folder without weights, which gives a random model."""
        return self.student is not None and is_blank(self.student)

    def config(self, teacher: PretrainedConfig, task: Task) -> PretrainedConfig:
        """Its configuration, with the task's outputs; UserError if no model of a proven family can be built from it."""
        if self.name is None:
            return teacher
        config = load_config(self.name, task.head, weights=not self.fresh)
        task.head.describe(config, task.labels)
        return config

    def taught_by(self, recipe: Recipe) -> tuple[Recipe, list[str]]:
        """The recipe, in which embeddings that would be random are not frozen, and a notice if that changed it."""
        if not self.fresh or recipe.student.embeddings != "frozen":
            return recipe, []
        spec = recipe.student.model_copy(update={"embeddings": "copied"})
        said = f"--student {self.student}: its embeddings are random, so they are trained, which recipe {recipe.name} "
        return recipe.model_copy(update={"student": spec}), [f"{said}would not do"]

    def depth(self, asked: int | None, source: PretrainedConfig) -> int:
        """How many layers the student has: those of `--student` unless fewer are asked for."""
        if asked is None and self.student is None:
            raise UserError(f"--student-layers: say how many layers the student should have, 1 to {depth_of(source)}")
        return depth_of(source) if asked is None else asked

    def load(self, teacher: PreTrainedModel | None, task: Task, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The model, with a head for the task; random weights come from torch's global generator."""
        if self.name is None:
            assert teacher is not None
            return teacher
        model = load_blank(self.name, task) if self.fresh else load_for_finetuning(self.name, task)
        adopt_padding(model, tokenizer)
        return model

    def readers(
        self, tokenizer: PreTrainedTokenizerBase, teacher: PretrainedConfig, source: PretrainedConfig, max_length: int
    ) -> Readers:
        """How both models read texts, of which the teacher does it with `tokenizer`.

        UserError for an `--init-from` with other tokens, and for texts of `max_length` tokens that do not fit in.
        """
        if self.name is None:
            return Readers(tokenizer, tokenizer)
        own, tokens = load_tokenizer(self.name, source), tokenizer.get_vocab()
        theirs = own.get_vocab()
        if theirs != tokens and self.student is None:
            differing = sum(theirs.get(token) != number for token, number in tokens.items())
            raise UserError(
                f"--init-from {self.name}: {differing} of the teacher's {len(tokens)} tokens have another number "
                "there; the student reads what the teacher reads, so start it from a model with the same tokenizer, or "
                "give it as --student, which brings its own"
            )
        usable_length(max_length, own, source, self.whose)
        if theirs != tokens:
            return Readers(own, tokenizer, apart=True)
        return Readers(as_student_reads(tokenizer, teacher, source), tokenizer)

    def notices(self, source: PretrainedConfig, readers: Readers) -> list[str]:
        """What the user should know of it before hours are spent."""
        notices = [
            f"--student {self.student}: it holds no weights, so the student starts from random ones"
        ] * self.fresh
        if readers.apart:
            notices.append("student and teacher have tokenizers of their own; every text is read with both")
            notices += special_token_notices(str(self.name), source, readers.student)
        return notices

    def settings(self, source: PretrainedConfig) -> dict[str, Any]:
        """What `run.json` keeps of it."""
        print_of = {name: name and fingerprint(name, source) for name in (self.init_from, self.student)}
        found = {"init_from": self.init_from, "init_from_fingerprint": print_of[self.init_from]}
        if self.student is not None:
            found |= {"student": self.student, "student_fingerprint": print_of[self.student]}
        return found


def as_student_reads(
    tokenizer: PreTrainedTokenizerBase, teacher: PretrainedConfig, source: PretrainedConfig
) -> PreTrainedTokenizerBase:
    """The teacher's tokenizer as it goes with a student like `source`: what that reads, no longer than it can read."""
    names = [n for n in tokenizer.model_input_names if n != "token_type_ids" or n in inputs_of(source)]
    longest, theirs = longest_text(tokenizer, source), longest_text(tokenizer, teacher)
    if names == tokenizer.model_input_names and longest >= theirs:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names  # the latter is saved
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return tokenizer

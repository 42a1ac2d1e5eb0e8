"""Whether a stage reads its teacher from a cache: decided from what the stage needs, and said with the reason."""

import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from transformers import PretrainedConfig

from layerstill.data.encode import Encoded
from layerstill.errors import UserError
from layerstill.families import family_of, has_windows, shape_of
from layerstill.knowledge.bound_objective import BoundObjective
from layerstill.sizes import size_in_words
from layerstill.training import processes
from layerstill.training.teacher_cache import SHARDS, Arithmetic, Contents, TeacherCache

log = logging.getLogger("layerstill")


@dataclass(frozen=True)
class CacheOptions:
    """`--cache` and `--cache-budget`."""

    where: str = "auto"
    """`auto`: in the run folder while it trains, if that pays; `off`; or a directory that runs share."""
    budget_gb: float = 4.0
    """Largest size on disk of all caches in the directory, in 10^9 bytes."""
    runs: int | None = None
    """How many runs share the directory, if that is known: with fewer passes among them than one it does not pay."""

    def __post_init__(self) -> None:
        if not 0 < self.budget_gb < float("inf"):
            raise UserError(f"--cache-budget {self.budget_gb}: use a positive number of gigabytes")


def cache_key(teacher: str, tokens: list[int] | None) -> str:
    """What the tensors of a teacher depend on: its fingerprint, and which of its tokens the student's are."""
    return teacher if tokens is None else f"{teacher}-{hashlib.sha256(repr(tokens).encode()).hexdigest()[:12]}"


def choose_cache(
    objectives: list[BoundObjective],
    teacher: PretrainedConfig,
    fingerprint: str,
    train: Encoded,
    passes: float,
    options: CacheOptions,
    own_folder: Path,
    arithmetic: Arithmetic,
) -> TeacherCache | None:
    """The cache that a stage uses, or None; logs what was decided and why.

    `passes` is how often the stage sees the training data; `own_folder` is where `auto` puts it.
    """
    try:
        contents = contents_to_cache(objectives, teacher, passes, options)
    except UserError as error:
        log.info("teacher cache: off, because %s", error)
        return None
    if contents is None:
        return None
    place = own_folder if options.where == "auto" else Path(options.where)
    cache = TeacherCache(place, fingerprint, contents, arithmetic)
    examples, missing = len(train.dataset), len(cache.missing(train.dataset["content"]))
    if cache.folder.exists() and not missing:
        log.info("teacher cache: on, %s of %d examples are already there", contents, examples)
        return cache
    shape, tokens = shape_of(teacher), train.tokens / examples
    each = contents.bytes_per_example(tokens, shape.width, shape.inner, teacher.num_labels, arithmetic) / 1e9
    limits = {
        "--cache-budget": options.budget_gb - _used_gigabytes(place),
        "half of the free disk": _free_gigabytes(place) / 2,
    }
    limit = min(limits, key=lambda name: limits[name])
    if not processes.first_succeeded(missing * each <= limits[limit]):
        log.info(
            "teacher cache: off, because %s of %d examples take %s more, and %s leaves %s",
            contents,
            missing,
            size_in_words(missing * each),
            limit,
            size_in_words(limits[limit]),
        )
        return None
    log.info("teacher cache: on, %s of %d examples, %s", contents, examples, size_in_words(examples * each))
    return cache


def contents_to_cache(
    objectives: list[BoundObjective], teacher: PretrainedConfig, passes: float, options: CacheOptions
) -> Contents | None:
    """What a cache of these objectives would hold, size aside; None if nobody wants one, UserError if it cannot be or
    would not pay."""
    if options.where == "off":
        return None
    contents = Contents.of(objectives)
    refuse_attention(contents, teacher)
    if not contents:
        return None
    if options.where == "auto" and passes < 2:
        raise UserError(f"the stage sees its examples {passes:.3g} times")
    if options.runs is not None and passes * options.runs < 1:
        raise UserError(f"{options.runs} runs see {passes * options.runs:.2g} of the examples")
    return contents


def refuse_attention(contents: Contents, teacher: PretrainedConfig) -> None:
    """UserError for attention that is not the same in every batch."""
    if contents.plan.attention and (family_of(teacher).projections is not None or has_windows(teacher)):
        raise UserError("attention of this family has a position bias or windows, which depend on the batch")


def _used_gigabytes(place: Path) -> float:
    return sum(path.stat().st_size for path in place.glob(f"teacher-*/{SHARDS}")) / 1e9


def _free_gigabytes(place: Path) -> float:
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free / 1e9

"""Which row of the table to ship: the budget decides, and the quantised teacher is always among those that may win."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from layerstill.compression.rows import Row
from layerstill.errors import UserError

DEFAULT_DROP = 2.0


@dataclass(frozen=True)
class Budget:
    """What a model to ship may cost."""

    max_ms: float | None = None
    """Median milliseconds for one text."""
    max_mb: float | None = None
    """Megabytes (10^6 bytes) on disk."""
    max_drop: float = DEFAULT_DROP
    """Points of the main metric, out of 100, below the teacher in PyTorch."""

    def __post_init__(self) -> None:
        for option, value in (("--max-ms", self.max_ms), ("--max-mb", self.max_mb)):
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{option} {value:g}: use a number above 0")
        if not 0 <= self.max_drop <= 100:
            raise UserError(f"--max-drop {self.max_drop:g}: use points of the main metric, 0 to 100")

    def misses(self, row: Row, teacher: Row) -> list[str]:
        """What a row exceeds, in words; empty if it fits."""
        found = []
        if not row.fit:
            found.append("its file does not give the model's answers")
        if self.max_ms is not None and row.p50_ms > self.max_ms:
            found.append(f"{row.p50_ms:.1f} ms of {self.max_ms:g}")
        if self.max_mb is not None and row.disk_mb > self.max_mb:
            found.append(f"{row.disk_mb:.1f} MB of {self.max_mb:g}")
        drop = drop_of(row, teacher)
        if not drop <= self.max_drop:  # so that no number is no small one
            found.append(f"{drop:.1f} points below the teacher, {self.max_drop:g} allowed")
        return found

    def excess(self, row: Row, teacher: Row) -> float:
        """By how much a row exceeds the budget, as the sum of shares of what is allowed; infinite if it is unfit."""
        if not row.fit:
            return float("inf")
        over = max(drop_of(row, teacher) - self.max_drop, 0.0) / max(self.max_drop, 1.0)
        for value, most in ((row.p50_ms, self.max_ms), (row.disk_mb, self.max_mb)):
            over += 0.0 if most is None else max(value / most - 1, 0.0)
        return over


@dataclass(frozen=True)
class Choice:
    """The row to ship, if any fits, and what there is to say about it."""

    row: Row | None
    sentences: tuple[str, ...]


def drop_of(row: Row, teacher: Row) -> float:
    """Points of the main metric, out of 100, that a row loses."""
    return 100 * (teacher.score - row.score)


def teacher_row(rows: Sequence[Row], form: str = "torch") -> Row | None:
    """The teacher in a form, if it was measured."""
    return next((row for row in rows if row.teaches and row.form == form), None)


def choose(rows: Sequence[Row], budget: Budget, collapsed: Collection[str] = ()) -> Choice:
    """The best row within the budget.

    With a limit on time or size that is the row that scores best, without one the fastest that loses no more than
    `max_drop`. Rows in PyTorch are there to compare with: what is shipped is a file. Models that are `collapsed`, that
    say one thing of everything, are never named.
    """
    teacher = teacher_row(rows)
    assert teacher is not None
    files = [row for row in rows if row.form != "torch" and row.model not in collapsed]
    fitting = [row for row in files if not budget.misses(row, teacher)]
    if not fitting:
        return Choice(None, _nothing(files, teacher, budget))
    limited = budget.max_ms is not None or budget.max_mb is not None
    if limited:
        chosen = max(fitting, key=lambda row: (row.score, -row.p50_ms))
    else:
        chosen = min(fitting, key=lambda row: row.p50_ms)
    return Choice(chosen, _sentences(chosen, files, teacher, budget))


def outdone(rows: Sequence[Row]) -> list[str]:
    """A warning for every student that the quantised teacher beats: it scores more and is no slower than any of the
    student's files."""
    int8 = teacher_row(rows, "int8")
    if int8 is None:
        return []
    said = []
    for model in dict.fromkeys(row.model for row in rows if not row.teaches):
        files = [row for row in rows if row.model == model and row.form != "torch"]
        if files and all(int8.score > row.score and int8.p50_ms <= row.p50_ms for row in files):
            best = min(files, key=lambda row: row.p50_ms)
            scores = f"{100 * int8.score:.1f}, this {100 * best.score:.1f}"
            times = f"{int8.p50_ms:.1f} ms, this {best.p50_ms:.1f}"
            said.append(f"WARNING: {model}: the quantised teacher scores higher ({scores}) and is no slower ({times}).")
    return said


def _sentences(row: Row, files: Sequence[Row], teacher: Row, budget: Budget) -> tuple[str, ...]:
    said = f"Ship {row.path}: {row.name}. {_described(row, teacher)}.{_unsure(row, teacher, budget)}"
    students = [r for r in files if not r.teaches]
    if row.teaches:
        what = "The quantised teacher" if row.form == "int8" else "The teacher as an ONNX file"
        nearest = min(students, key=lambda r: (budget.excess(r, teacher), drop_of(r, teacher)), default=None)
        why = f" The student that comes nearest is {nearest.name}: {_described(nearest, teacher)}." if nearest else ""
        return said, f"{what} is the better buy here: no student does better within the budget.{why}"
    int8 = teacher_row(files, "int8")
    if int8 is None:
        return (said,)
    faster, smaller = int8.p50_ms / row.p50_ms, int8.disk_mb / row.disk_mb
    against = f"{faster:.1f} times as fast as the quantised teacher and {smaller:.1f} times smaller"
    if row.score < int8.score and faster <= 1:
        against += "; the quantised teacher scores higher and is no slower, so it is the better buy unless size decides"
    return said, f"It is {against}; the quantised teacher keeps {int8.percent} at {int8.p50_ms:.1f} ms."


def _unsure(row: Row, teacher: Row, budget: Budget) -> str:
    """A warning where dev is too small to tell whether the row loses more than is allowed."""
    if row.interval is None or row.teaches:
        return ""
    allowed = 100 * (1 - budget.max_drop / 100 / max(teacher.score, 1e-12))
    if row.interval[0] >= allowed:
        return ""
    return f" On so few texts it may keep anything from {row.interval[0]:.1f} to {row.interval[1]:.1f} %."


def _described(row: Row, teacher: Row) -> str:
    size = f"{row.disk_mb:.1f} MB ({teacher.disk_mb / row.disk_mb:.1f} times smaller)"
    speed = f"{row.p50_ms:.1f} ms a text ({teacher.p50_ms / row.p50_ms:.1f} times as fast)"
    score = f"scores {100 * row.score:.1f}" if row.kept is None else f"keeps {row.percent} of the teacher"
    return f"It {score} at {speed} and {size}"


def _nothing(files: Sequence[Row], teacher: Row, budget: Budget) -> tuple[str, ...]:
    """Why nothing fits, and what would have to be allowed for the row that misses least."""
    nearest = min(files, key=lambda row: budget.excess(row, teacher))
    missed = ", ".join(budget.misses(nearest, teacher))
    return (
        "No model fits the budget.",
        f"Nearest is {nearest.name} ({nearest.path}): {missed}. Allow that, or try --effort thorough or more texts.",
    )

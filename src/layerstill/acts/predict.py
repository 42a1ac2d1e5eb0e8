"""The act `predict`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from transformers import PreTrainedTokenizerBase

from layerstill.acts.inputs import Model
from layerstill.acts.predictors import Predictor, load_predictor
from layerstill.data import conll
from layerstill.data.answers import SEPARATORS, AnswerFile, refuse_target
from layerstill.data.columns import USUAL, guess_texts, texts_of
from layerstill.data.files import Table
from layerstill.data.parts import Parts
from layerstill.data.writing import appears_whole
from layerstill.errors import UserError, nearest
from layerstill.heads.prediction import Prediction
from layerstill.progress import our_bars_only
from layerstill.training.stages import note

OPTION = "--text-columns"
DIGITS = 6
"""Of probabilities and scores in files."""


@our_bars_only()
def predict(
    model: Model,
    texts: Sequence[str | Sequence[str]],
    max_length: int | None = None,
    threshold: float | None = None,
    file: str | None = None,
    *,
    batch_size: int = 64,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> list[Prediction]:
    """What a model says of texts, in their order.

    Args:
        model: a run's folder, any fine-tuned folder, a hub id, a loaded model, or a folder that `export` wrote.
        texts: strings, or tuples of two for a model of pairs. For a model of tags, sentences as strings, whose words
            white space sets apart, or as lists of words.
        max_length: longest text in tokens; without it as in training, else 128 or what the model allows. An export has
            its own.
        threshold: of several labels, the probability from which on one is given.
        file: which one of an exported folder, `model.int8.onnx` say.
        batch_size: how many texts at a time.
        tokenizer: of a loaded model; without it the one where the model was loaded from.

    UserError for a model without a task head, and for texts of another number than the model reads.
    """
    if isinstance(texts, str):
        raise UserError("texts: a list of them is expected, got one string; write [text]")
    predictor = load_predictor(model, file, max_length, threshold, batch_size, tokenizer)
    rows = [_as_row(text, predictor, i) for i, text in enumerate(texts)]
    found = predictor.said(rows)
    note([*predictor.notices, *predictor.closing()])
    return found


def _as_row(text: Any, predictor: Predictor, number: int) -> tuple[str, ...]:
    words = predictor.head.per_token
    row = (tuple(text.split()) if words else (text,)) if isinstance(text, str) else tuple(text)
    wanted = (predictor.texts,) if predictor.texts else (1, 2)
    if not all(isinstance(part, str) for part in row) or not (words or len(row) in wanted):
        said = (
            "words"
            if words
            else "one text"
            if wanted == (1,)
            else "two texts"
            if wanted == (2,)
            else "one or two texts"
        )
        raise UserError(f"texts[{number}]: {text!r:.80} where model {predictor.name} reads {said}")
    return row


@dataclass(frozen=True)
class Predicted:
    """What was written of a file."""

    rows: int
    columns: tuple[str, ...]
    """Which texts were read."""


def predict_file(
    model: Model,
    data: Path | Any,
    output: Path | TextIO,
    text_columns: tuple[str, ...] = (),
    probabilities: bool = False,
    max_length: int | None = None,
    threshold: float | None = None,
    file: str | None = None,
) -> Predicted:
    """Ask a model about every row of a file, and write the rows with its answers, in their order.

    Rows are read, asked about and written a part at a time, so that a file may be larger than memory.

    Args:
        model: as in `predict`.
        data: a file of texts, `.tsv .csv .jsonl .parquet .txt` (a table, or one text per line), for tags `.conll` and
            its kin, too; or a stream of bytes with one text per line, or JSON lines. Labels are not needed, and every
            column is kept.
        output: a new file, `.jsonl .csv .tsv`, which is written whole or not at all; or a stream, for JSON lines.
        text_columns: without them those of the run that made the model, or usual ones.
        probabilities: of all classes or labels, rather than of what is given.
        max_length: as in `predict`.
        threshold: as in `predict`.
        file: as in `predict`.

    UserError for what cannot be read, and for a file that is there already; nothing is written then.
    """
    if isinstance(output, Path):
        refuse_target(output)
    predictor = load_predictor(model, file, max_length, threshold)
    if probabilities and not predictor.head.probable:
        raise UserError(
            f"--probabilities: model {predictor.name} gives {predictor.head.gives}, and no probability of each; "
            "leave it out"
        )
    words = predictor.head.per_token
    trained = tuple(predictor.source.text_columns) if predictor.source else ()
    known = (text_columns,) if text_columns else (trained, *USUAL) if trained else USUAL
    whole = Parts(data, predictor.texts, words, known)
    parts = iter(whole)
    first = next(parts, None)
    if first is None:
        raise UserError(f"{data}: no texts in it")
    columns, notices = _columns(first, text_columns, predictor, whole.named)
    note([*predictor.notices, *notices, *first.notices])
    suffix = output.suffix if isinstance(output, Path) else ".jsonl"
    asking = _Asking(predictor, columns, first, probabilities, suffix in SEPARATORS)
    answers = asking.rows(chain([first], parts))
    if isinstance(output, Path):
        with appears_whole(output) as part, part.open("w", encoding="utf-8", newline="") as stream:
            count = AnswerFile(stream, suffix, " " if words else "|").write(answers)
    else:
        count = AnswerFile(output, suffix).write(answers)
    note([*whole.closing(), *predictor.closing()])
    return Predicted(count, columns)


class _Asking:
    """Rows of a file with what a model says of them; in a table, each of all probabilities has a column of its own."""

    def __init__(
        self, predictor: Predictor, columns: tuple[str, ...], first: Table, probabilities: bool, table: bool
    ) -> None:
        self._predictor, self._columns, self._first = predictor, columns, first
        self._table = table
        self._own = [self._free(name) for name in predictor.head.answers(predictor.labels)]
        self._one = None if probabilities else self._free("probability")
        self._every = self._free("probabilities") if probabilities and not table else None
        self._each = [self._free(f"probability_{name}") for name in predictor.labels] if table and probabilities else []

    def _free(self, name: str) -> str:
        """The name, or if the file has such a column `predicted_` before it."""
        taken = self._first.columns
        if name in taken and f"predicted_{name}" in taken:
            raise UserError(
                f"{self._first.path}: it has columns {name!r} and 'predicted_{name}', so that no name is left for the "
                "answers; rename one"
            )
        return f"predicted_{name}" if name in taken else name

    def rows(self, parts: Iterable[Table]) -> Iterator[dict[str, Any]]:
        """Every row with its answer."""
        for table in parts:
            self._refuse_new(table)
            said = self._predictor.said(self._texts(table))
            for i, one in enumerate(said):
                yield {name: values[i] for name, values in table.columns.items()} | self._answer(one)

    def _refuse_new(self, table: Table) -> None:
        """UserError for keys that came up too late to have a column, or to give their name to the answers."""
        answers = {*self._own, self._one, self._every, *self._each}
        for name in table.columns:
            if name not in self._first.columns and (self._table or name in answers):
                where = f"{table.path}: key {name!r} is in no row before line {table.lines[0]}"
                way = f"rename it, as {name!r} is taken for the answers" if name in answers else "write them as .jsonl"
                raise UserError(f"{where}, when the columns of the answers were fixed; {way}")

    def _texts(self, table: Table) -> list[tuple[str, ...]]:
        values = [table.columns.get(name, []) for name in self._columns]
        if table is not self._first and not any(not isinstance(v, str) or v.strip() for c in values for v in c):
            return list(zip(*values, strict=True))  # a whole file of empty texts is a mistake, a part may be one
        if not self._predictor.head.per_token:
            return texts_of(table, self._columns, OPTION)
        if conll.column_of_words(table, self._columns):
            return conll.words_of(table, self._columns[0], OPTION)
        return [tuple(text.split()) for (text,) in texts_of(table, self._columns, OPTION)]

    def _answer(self, said: Prediction) -> dict[str, Any]:
        own = said.label.values() if isinstance(said.label, dict) else (said.label,)
        answer = dict(zip(self._own, map(_rounded, own), strict=True))
        every = {name: round(p, DIGITS) for name, p in said.probabilities.items()}
        if self._every is not None:
            answer[self._every] = every
        if self._one is not None and said.probability is not None:
            answer[self._one] = _rounded(said.probability)
        return answer | dict(zip(self._each, every.values(), strict=True) if self._each else ())


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(one) for one in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def _columns(
    table: Table, asked: tuple[str, ...], predictor: Predictor, named: bool
) -> tuple[tuple[str, ...], list[str]]:
    """The text columns, and a notice where they are not those of training."""
    trained = tuple(predictor.source.text_columns) if predictor.source else ()
    found, notices = asked, []
    if asked:
        for name in asked:
            if name not in table.columns:
                raise UserError(f"{table.path}: no column {name!r} (from {OPTION}): {nearest(name, table.columns)}")
    elif trained and all(name in table.columns for name in trained):
        found = trained
    else:
        found = _guessed(table, trained, predictor)
    if trained and found != trained and named:
        notices.append(f"{OPTION} {','.join(found)} is used, but the model was trained with {','.join(trained)}")
    if predictor.texts not in (None, len(found)):
        wanted = "one text" if predictor.texts == 1 else "pairs of texts"
        with_ = f", trained with {','.join(trained)}" if trained else ""
        raise UserError(
            f"{table.path}: model {predictor.name} reads {wanted}{with_}, and {','.join(found)} is {len(found)}; say "
            f"{OPTION} {'NAME' if predictor.texts == 1 else 'NAME,NAME'}; columns: {', '.join(table.columns)}"
        )
    return found, notices


def _guessed(table: Table, trained: tuple[str, ...], predictor: Predictor) -> tuple[str, ...]:
    if predictor.head.per_token and (words := conll.column_of_words(table, ())):
        return (words,)
    if len(table.columns) == 1 and predictor.texts in (None, 1):
        return tuple(table.columns)
    label = predictor.source.label_column if predictor.source else "label"
    try:
        return guess_texts(table, label)
    except UserError as error:
        raise UserError(f"{error}{f'; trained with {chr(44).join(trained)}' if trained else ''}") from None

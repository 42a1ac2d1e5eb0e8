"""Packing: a corpus becomes blocks of tokens on the disk, once; an interrupted packing goes on where it was."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from layerstill.atomic import read_json, write_json
from layerstill.data.text.blocks import LENGTHS_FILE, TOKENS_FILE, Blocks
from layerstill.data.text.documents import Piece, corpus_files, read_documents
from layerstill.errors import UserError
from layerstill.progress import Task

log = logging.getLogger("layerstill")

STATE_FILE = "packed.json"
LOCK_FILE = "packing.lock"
BATCH = 512
"""Pieces of documents that are tokenised at a time."""
SAMPLES = 64
"""Places of a file at which its content is looked at, to know it again."""
SAMPLE_BYTES = 4096
LONGEST_BLOCK = 2**16 - 1


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus, and which column of them holds the texts."""

    path: Path
    files: tuple[Path, ...]
    column: str | None = None
    notices: tuple[str, ...] = ()
    open_ended: ClassVar[bool] = False
    """Whether nobody knows how long it is."""
    once: ClassVar[bool] = False
    """Whether it can be read a single time only."""

    @classmethod
    def at(cls, path: str | Path, column: str | None = None) -> "Corpus":
        """The corpus of a file or of all files of a folder; UserError if there is none."""
        path = Path(path)
        files, others = corpus_files(path)
        said = f"{others} files in {path} are of another kind and are left out"
        return cls(path, tuple(files), column, (said,) if others else ())

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the column, and of every file's size and content at evenly spread places."""
        digest = hashlib.sha256(repr(self.column).encode())
        for file in self.files:
            size = file.stat().st_size
            digest.update(f"{file.name} {size}".encode())
            with file.open("rb") as stream:
                for i in range(SAMPLES):
                    stream.seek(i * size // SAMPLES)
                    digest.update(stream.read(SAMPLE_BYTES))
        return digest.hexdigest()[:12]

    def pieces(self, begin: int) -> Iterator[tuple[int, int, Piece]]:
        """Every piece of every document from file number `begin` on, with the file's number and its own in the file."""
        for number, file in enumerate(self.files[begin:], begin):
            for place, piece in enumerate(read_documents(file, self.column)):
                yield number, place, piece


@dataclass
class Packed:
    """How far packing has come."""

    identity: str
    """Of corpus, tokenizer and length."""
    done: bool = False
    file: int = 0
    pieces: int = 0
    """Of this file, that have been packed."""
    carry: list[int] = field(default_factory=list)
    """Tokens of the document that goes on, too few for a block yet."""
    blocks: int = 0
    tokens: int = 0
    """Without the special ones around blocks."""
    documents: int = 0
    digest: str = ""
    """Of the texts of a corpus without an end that have been packed."""
    width: int = 2
    """Bytes of a token's number."""
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)

    def opened(self, folder: Path) -> Blocks:
        """The blocks in a folder."""
        return Blocks(folder, self.blocks, self.tokens, self.width, self.before, self.after)


def pack(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, length: int, folder: Path, most: int | None = None
) -> Packed:
    """Cut a corpus into blocks of at most `length` tokens, special ones included, in `folder`.

    A block has tokens of one document only. The last block of a document is shorter, and so is that of a short one.
    With `most`, no more than about so many tokens are packed. The same call goes on where an interrupted one was, and
    returns at once what is there. UserError for a corpus without text, and for a folder with the blocks of another.
    """
    before, after = surroundings(tokenizer)
    room = length - len(before) - len(after)
    if not 0 < room <= LONGEST_BLOCK:
        raise UserError(f"--max-length {length}: blocks need {len(before) + len(after) + 1} to {LONGEST_BLOCK} tokens")
    identity = identity_of(corpus, tokenizer, length, most)
    state = _state(folder, identity)
    if state is None or not state.done:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK_FILE):  # another run may pack the same corpus into a shared folder
            state = _state(folder, identity)
            if state is None:
                width = 2 if len(tokenizer) <= 2**16 else 4
                state = Packed(identity, width=width, before=before, after=after)
            if not state.done:
                _Packer(folder, state, room, most).run(corpus, tokenizer)
    if state.blocks < 2:
        raise UserError(f"--data {corpus.path}: {state.tokens} tokens in it, too few to train on")
    return state


def is_packed(folder: Path) -> bool:
    """Whether a folder has all blocks of a corpus."""
    return (folder / STATE_FILE).is_file() and bool(read_json(folder / STATE_FILE).get("done"))


def surroundings(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that stand before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    return whole[:at], whole[at + len(bare) :]


def identity_of(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, length: int, most: int | None) -> str:
    """Twelve hexadecimal digits of what decides which blocks there are."""
    told = corpus.fingerprint, sorted(tokenizer.get_vocab().items()), length, most
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def digest_of(before: str, texts: Iterable[str]) -> str:
    """A digest that goes on from `before` with every text; empty for none."""
    found = before
    for text in texts:
        found = hashlib.blake2b(found.encode() + text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return found


def _state(folder: Path, identity: str) -> Packed | None:
    """What the folder says; None if nothing has been packed there."""
    try:
        state = Packed(**read_json(folder / STATE_FILE))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        raise UserError(f"{folder / STATE_FILE}: damaged; remove the folder, and the corpus is packed again") from None
    if state.identity != identity:
        raise UserError(
            f"{folder}: it holds the blocks of another corpus, tokenizer or --max-length; the corpus may have changed "
            "since; remove the folder, or choose another --output"
        )
    return state


class _Packer:
    def __init__(self, folder: Path, state: Packed, room: int, most: int | None) -> None:
        self.folder, self.state, self.room, self.most = folder, state, room, most
        self.ids: list[np.ndarray] = []
        self.lengths: list[int] = []

    def run(self, corpus: Corpus, tokenizer: PreTrainedTokenizerBase) -> None:
        state = self.state
        self.folder.mkdir(parents=True, exist_ok=True)
        self._truncate()
        file, pieces = state.file, state.pieces
        with Task("packing the corpus, in tokens", self.most, state.tokens) as shown:
            self._pack(corpus, tokenizer, file, pieces, shown)
        if state.carry:
            self._cut(state.carry)
            state.carry = []
        state.done = True
        self._flush()

    def _pack(self, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, file: int, pieces: int, shown: Task) -> None:
        state = self.state
        left = self._left(corpus, file, pieces)
        while self._wants_more and (batch := list(islice(left, BATCH))):
            texts = [piece.text for _, _, piece in batch]
            rows = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
            for (_, _, piece), row in zip(batch, rows, strict=True):
                self._take(row, piece.begins)
            if corpus.open_ended:
                state.digest = digest_of(state.digest, texts)
            state.file, state.pieces = batch[-1][0], batch[-1][1] + 1
            before = state.tokens
            self._flush()
            shown.advance(state.tokens - before)

    @property
    def _wants_more(self) -> bool:
        """Also after an interruption that came just when there was enough."""
        return self.most is None or self.state.tokens < self.most

    def _left(self, corpus: Corpus, file: int, pieces: int) -> Iterator[tuple[int, int, Piece]]:
        """What has not been packed. Of a stream what has been is read again, and compared by its digest."""
        every = corpus.pieces(file)
        if corpus.open_ended:
            passed = digest_of("", (piece.text for _, _, piece in islice(every, pieces)))
            if passed != self.state.digest:
                raise UserError(
                    f"--data {corpus.path}: its first {pieces:,} texts are other ones than those in {self.folder}, "
                    "where packing was interrupted; remove the folder, or choose another --output"
                )
            return every
        return (piece for piece in every if piece[0] > file or piece[1] >= pieces)

    def _take(self, row: list[int], begins: bool) -> None:
        state = self.state
        if begins:
            state.documents += 1
            if state.carry:
                self._cut(state.carry)
            state.carry = []
        ids = [*state.carry, *row]
        whole = len(ids) // self.room * self.room
        for at in range(0, whole, self.room):
            self._cut(ids[at : at + self.room])
        state.carry = ids[whole:]

    def _cut(self, ids: list[int]) -> None:
        self.ids.append(np.array(ids, np.dtype(f"<u{self.state.width}")))
        self.lengths.append(len(ids))

    def _flush(self) -> None:
        """Blocks first, then the state that counts them, so that a state never counts what is not there."""
        if self.ids:
            self._append(TOKENS_FILE, np.concatenate(self.ids))
            self._append(LENGTHS_FILE, np.array(self.lengths, np.uint16))
        self.state.blocks += len(self.lengths)
        self.state.tokens += sum(self.lengths)
        self.ids, self.lengths = [], []
        write_json(self.folder / STATE_FILE, asdict(self.state))

    def _append(self, name: str, values: np.ndarray) -> None:
        with (self.folder / name).open("ab") as file:
            file.write(values.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def _truncate(self) -> None:
        """Forget what was written after the state."""
        for name, size in ((TOKENS_FILE, self.state.tokens * self.state.width), (LENGTHS_FILE, self.state.blocks * 2)):
            with (self.folder / name).open("ab") as file:
                file.truncate(size)


def describe(text: dict[str, Any], length: int) -> str:
    """What the user should know of the blocks that `to_record` has."""
    blocks = text["blocks"] + text["held_out_blocks"]
    mean = text["tokens"] / max(text["blocks"], 1)
    return (
        f"{text['documents']:,} documents in {blocks:,} blocks of at most {length} tokens, {mean:.0f} on "
        f"average, none across documents; {text['tokens']:,} tokens to train on, {text['held_out_blocks']:,} blocks "
        "held out"
    )


def to_record(documents: int, train: Blocks, dev: Blocks, vocabulary: Sequence[int] | None = None) -> dict[str, Any]:
    """Plain data for `result.json`; `vocabulary` are the kept tokens, if some are left out."""
    return {
        "documents": documents,
        "blocks": len(train),
        "tokens": train.tokens,
        "held_out_blocks": len(dev),
        "held_out_tokens": dev.tokens,
        **({} if vocabulary is None else {"vocabulary": len(vocabulary)}),
    }

"""How much a corpus holds, known before it is packed: small ones are packed, of large ones some beginnings."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from layerstill.data.text.blocks import Blocks, held_out, held_out_count
from layerstill.data.text.documents import Piece, extent, read_documents
from layerstill.data.text.packing import Corpus, is_packed, pack, to_record

SAMPLE = 4_000_000
"""Characters of a large corpus that are read, and bytes up to which a corpus is read whole."""
FILES = 16
"""Files of which so many characters are read at most."""


@dataclass(frozen=True)
class Look:
    """What is known of a corpus."""

    text: dict[str, Any]
    """As `to_record`; estimated where the corpus was not read whole."""
    blocks: Blocks
    """Those that were made on the way, held-out ones included."""
    seconds: float
    """What packing all of it takes; 0 where it has been packed."""
    read: str = ""
    """Of how much of the corpus it is an estimate, in words; empty where it is exact."""


@dataclass(frozen=True)
class Beginnings(Corpus):
    """The first documents of some files of a corpus, evenly spread over them."""

    reached: dict[int, int] = field(default_factory=dict, compare=False)
    """How far each of these files was read, as `extent` counts."""

    @property
    def numbers(self) -> list[int]:
        """Of the files."""
        step = -(-len(self.files) // FILES)
        return list(range(len(self.files)))[step // 2 :: step]

    @property
    def share(self) -> float:
        """What part of the whole corpus was read, by the sizes of files."""
        sizes = [file.stat().st_size for file in self.files]
        read = sum(sizes[n] * min(end / max(extent(self.files[n]), 1), 1.0) for n, end in self.reached.items())
        return read / sum(sizes)

    def pieces(self, begin: int) -> Iterator[tuple[int, int, Piece]]:
        numbers = self.numbers
        for number in (n for n in numbers if n >= begin):
            left = SAMPLE / len(numbers)
            for place, piece in enumerate(read_documents(self.files[number], self.column)):
                self.reached[number] = piece.end
                yield number, place, piece
                left -= len(piece.text)
                if left <= 0:
                    break
            else:
                self.reached[number] = extent(self.files[number])


def look_at(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    folder: Path,
    most: int | None = None,
    shared: Path | None = None,
) -> Look:
    """How many documents, blocks and tokens `pack` would find, from what it takes a few seconds to read.

    `folder` is an empty one for the blocks that are made on the way, `shared` where a run would look for ready ones.
    UserError as in `pack`.
    """
    if shared is not None and is_packed(shared):
        packed = pack(corpus, tokenizer, length, shared, most)
        return exactly(packed.opened(shared), packed.documents, 0.0)
    if corpus.open_ended:
        return _look_into(corpus, tokenizer, length, folder, most)
    size = sum(file.stat().st_size for file in corpus.files)
    begun = time.perf_counter()
    if size <= SAMPLE:
        packed = pack(corpus, tokenizer, length, folder, most)
        return exactly(packed.opened(folder), packed.documents, time.perf_counter() - begun)
    some = Beginnings(corpus.path, corpus.files, corpus.column)
    packed = pack(some, tokenizer, length, folder)
    seconds, blocks = time.perf_counter() - begun, packed.opened(folder)
    share = some.share
    if share == 1 and most is None and len(some.numbers) == len(some.files):
        return exactly(blocks, packed.documents, seconds)
    times = 1 / share
    if most is not None:
        times = min(times, most / packed.tokens)
    read = f"the first {size * share / 1e6:.3g} MB of {len(some.numbers)} of {len(corpus.files)} files"
    return _estimated(blocks, packed.documents, seconds, times, f"{read}, {size / 1e6:,.3g} MB in all")


def _look_into(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, length: int, folder: Path, most: int | None) -> Look:
    """Of a corpus without an end its beginning, for `most` tokens of it."""
    begun, some = time.perf_counter(), SAMPLE // 4
    enough = most is not None and most <= some
    packed = pack(corpus, tokenizer, length, folder, most if enough else some)
    seconds, blocks = time.perf_counter() - begun, packed.opened(folder)
    if most is None or enough or packed.tokens < some:
        return exactly(blocks, packed.documents, seconds)
    times = most / packed.tokens
    return _estimated(blocks, packed.documents, seconds, times, f"its first {packed.tokens:,} tokens")


def _estimated(blocks: Blocks, documents: int, seconds: float, times: float, read: str) -> Look:
    """What is known of a corpus that is so many times what was packed."""
    count = max(round(len(blocks) * times), 2)
    apart = held_out_count(count)
    each = blocks.tokens / len(blocks)
    text = {
        "documents": round(documents * times),
        "blocks": count - apart,
        "tokens": round((count - apart) * each),
        "held_out_blocks": apart,
        "held_out_tokens": round(apart * each),
    }
    return Look(text, blocks, seconds * times, read)


def exactly(blocks: Blocks, documents: int, seconds: float) -> Look:
    """What is known of a corpus that was packed."""
    train, dev = divided(blocks)
    return Look(to_record(documents, train, dev), blocks, seconds)


def divided(blocks: Blocks) -> tuple[Blocks, Blocks]:
    """What is trained on, and what is held out."""
    apart = held_out(len(blocks))
    return blocks.part(np.flatnonzero(~apart)), blocks.part(np.flatnonzero(apart))

"""The blocks of a corpus, in the folder of a run or in one that several share."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from layerstill.data.text.blocks import Blocks
from layerstill.data.text.packing import Corpus, Packed, identity_of, pack
from layerstill.training import processes
from layerstill.training.arguments import Options


def shared_place(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, options: Options, most: int | None) -> Path | None:
    """Where in `--cache DIR` the blocks of a corpus are; None without such a folder."""
    if options.cache.where in {"auto", "off"} or corpus.once:  # of which nothing is known that others could share
        return None
    return Path(options.cache.where) / f"corpus-{identity_of(corpus, tokenizer, options.max_length, most)}"


def packed(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, options: Options, most: int | None, own: Path
) -> tuple[Packed, Blocks]:
    """The corpus as blocks, in `own` unless several runs share them; the first process packs, the others wait."""
    place = shared_place(corpus, tokenizer, options, most) or own
    if processes.is_first():
        pack(corpus, tokenizer, options.max_length, place, most)
    processes.wait_for_all()
    found = pack(corpus, tokenizer, options.max_length, place, most)
    return found, found.opened(place)

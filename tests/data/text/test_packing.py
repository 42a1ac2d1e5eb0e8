"""Blocks hold every token of a corpus once, in order, none across documents, however often packing was interrupted."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from layerstill.data.text.blocks import ShuffledBlocks, held_out
from layerstill.data.text.packing import BATCH, STATE_FILE, Corpus, pack, surroundings
from layerstill.errors import UserError
from tests.tiny import WORDS, tiny_tokenizer

LENGTH = 8
ROOM = LENGTH - 2


@pytest.fixture
def corpus(tmp_path):
    """1,300 documents of 1 to 20 words in two files."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, count in (("a", 700), ("b", 600)):
        texts = [" ".join(rng.choice(WORDS, rng.integers(1, 21))) for _ in range(count)]
        (folder / f"{name}.txt").write_text("\n\n".join(texts) + "\n", "utf-8")
    return Corpus.at(folder)


def words_of(corpus: Corpus) -> list[list[str]]:
    return [text.split() for file in corpus.files for text in file.read_text("utf-8").split("\n\n")]


def test_blocks_are_the_documents(corpus, tmp_path):
    tokenizer = tiny_tokenizer()
    packed = pack(corpus, tokenizer, LENGTH, tmp_path / "blocks")
    blocks = packed.opened(tmp_path / "blocks")
    expected = []
    for words in words_of(corpus):
        ids = tokenizer.convert_tokens_to_ids(words)
        expected += [[2, *ids[i : i + ROOM], 3] for i in range(0, len(ids), ROOM)]
    assert [blocks[i]["input_ids"] for i in range(len(blocks))] == expected
    assert blocks["length"].tolist() == [len(ids) for ids in expected]
    assert (packed.documents, packed.blocks) == (1300, len(expected))
    assert blocks.tokens == sum(map(len, expected))
    part = blocks.part(np.array([5, 3]))
    assert [part[i]["id"] for i in range(2)] == [5, 3]
    assert part["length"].tolist() == [len(expected[5]), len(expected[3])]


class Stops(Exception):
    pass


class Stopping:
    """A tokenizer that ends after so many calls."""

    def __init__(self, calls: int) -> None:
        self.tokenizer, self.calls = tiny_tokenizer(), calls

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(self, texts, **settings):
        if isinstance(texts, list):
            self.calls -= 1
            if self.calls < 0:
                raise Stops
        return self.tokenizer(texts, **settings)


def test_an_interrupted_packing_goes_on_where_it_was(corpus, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pack(corpus, tiny_tokenizer(), LENGTH, whole)
    starts = 0
    while True:
        try:
            pack(corpus, Stopping(1), LENGTH, parts)
            break
        except Stops:
            starts += 1
            with (parts / "tokens.bin").open("ab") as file:
                file.write(b"half of a portion")  # which the state does not know of
    assert starts == 1300 // BATCH
    for file in whole.iterdir():
        assert (parts / file.name).read_bytes() == file.read_bytes(), file.name


def test_one_document_that_goes_on_through_many_portions_is_packed_without_a_gap(tmp_path):
    words = list(np.random.default_rng(1).choice(WORDS, 200_000))
    (tmp_path / "a.txt").write_text("\n".join(words), "utf-8")
    corpus = Corpus.at(tmp_path / "a.txt")
    blocks = pack(corpus, tiny_tokenizer(), 64, tmp_path / "blocks").opened(tmp_path / "blocks")
    assert set(blocks["length"][:-1]) == {64}
    ids = [i for n in range(len(blocks)) for i in blocks[n]["input_ids"][1:-1]]
    assert ids == tiny_tokenizer().convert_tokens_to_ids(words)


def test_no_more_is_packed_than_is_asked_for(corpus, tmp_path):
    packed = pack(corpus, tiny_tokenizer(), LENGTH, tmp_path / "blocks", most=100)
    assert 100 <= packed.tokens < 20 * BATCH
    assert packed.documents == BATCH


def test_a_packing_that_stopped_when_there_was_enough_packs_no_more(corpus, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pack(corpus, tiny_tokenizer(), LENGTH, whole, most=100)
    with pytest.raises(Stops):
        pack(corpus, Stopping(1), LENGTH, parts)
    state = json.loads((parts / STATE_FILE).read_text("utf-8"))
    state["identity"] = json.loads((whole / STATE_FILE).read_text("utf-8"))["identity"]
    (parts / STATE_FILE).write_text(json.dumps(state), "utf-8")
    pack(corpus, tiny_tokenizer(), LENGTH, parts, most=100)
    for file in whole.iterdir():
        assert (parts / file.name).read_bytes() == file.read_bytes(), file.name


def test_blocks_of_another_corpus_are_not_taken_for_these(corpus, tmp_path):
    place = tmp_path / "blocks"
    pack(corpus, tiny_tokenizer(), LENGTH, place)
    assert pack(corpus, tiny_tokenizer(), LENGTH, place).done
    with pytest.raises(UserError, match="the blocks of another corpus, tokenizer or --max-length"):
        pack(corpus, tiny_tokenizer(), LENGTH + 1, place)
    corpus.files[0].write_text("something else\n", "utf-8")
    with pytest.raises(UserError, match="may have changed"):
        pack(corpus, tiny_tokenizer(), LENGTH, place)
    (place / STATE_FILE).write_text("{", "utf-8")
    with pytest.raises(UserError, match="damaged"):
        pack(corpus, tiny_tokenizer(), LENGTH, place)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_corpus_without_text_is_refused(text, tmp_path):
    (tmp_path / "a.txt").write_text(text, "utf-8")
    with pytest.raises(UserError, match="0 tokens in it, too few"):
        pack(Corpus.at(tmp_path / "a.txt"), tiny_tokenizer(), LENGTH, tmp_path / "blocks")


def test_special_tokens_surround_every_block():
    assert surroundings(tiny_tokenizer()) == ([2], [3])


@pytest.mark.parametrize(("count", "expected"), [(10, 1), (100, 10), (2_000, 64), (50_000, 500), (10**6, 1024)])
def test_so_many_blocks_are_held_out_in_spans(count, expected):
    chosen = held_out(count).nonzero()[0]
    assert len(chosen) == expected
    breaks = (np.diff(chosen) > 1).sum() + 1
    assert breaks == -(-expected // 16)


@pytest.mark.parametrize("rows", [1, 37, 640, 1000])
def test_an_epoch_has_every_block_once_in_whole_batches_of_like_lengths(rows):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 129, rows).astype(np.int32)

    def epoch(number: int, seed: int = 0) -> list[int]:
        order = ShuffledBlocks(lengths, 8, seed, shard=100)
        order.set_epoch(number)
        assert len(order) == rows
        return list(order)

    first = epoch(0)
    assert sorted(first) == list(range(rows))
    assert epoch(0) == first
    if rows > 1:
        assert epoch(1) != first
        assert epoch(0, seed=1) != first
    if rows == 1000:
        padded = sum(8 * max(lengths[first[i : i + 8]]) for i in range(0, rows, 8))
        assert padded < 1.12 * lengths.sum(), "neighbours are of similar length"
        assert abs(np.mean(first[:200]) - 500) < 60, "the first blocks are a sample of all"


def test_two_runs_that_pack_into_one_folder_take_turns(corpus, tmp_path):
    """Without a lock both would append to the same files, and the state would count half of what is there."""
    with ThreadPoolExecutor(2) as pool:
        states = list(pool.map(lambda _: pack(corpus, tiny_tokenizer(), LENGTH, tmp_path / "shared"), range(2)))
    alone = pack(corpus, tiny_tokenizer(), LENGTH, tmp_path / "alone")
    assert states[0].tokens == states[1].tokens == alone.tokens
    for name in ("tokens.bin", "lengths.bin"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()

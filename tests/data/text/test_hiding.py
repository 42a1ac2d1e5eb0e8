"""Hidden words: how many, which, behind what, and that nothing but seed, epoch, block and place decides."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from layerstill.data.text.blocks import Blocks, ShuffledBlocks
from layerstill.data.text.collator import TextCollator
from layerstill.data.text.hiding import Hiding
from layerstill.data.text.packing import Corpus, pack
from layerstill.errors import UserError
from layerstill.heads import CausalLM, MaskedLM
from layerstill.knowledge.views import Masked
from layerstill.randomness import drawn, drawn_bits
from layerstill.training.batches import MicroBatches, MicroBatchLoader
from tests.tiny import SPECIAL, VOCABULARY, WORDS, tiny_tokenizer

MASK = SPECIAL.index("[MASK]")
PIECES = "good bad film plot ##ing ##ed ##s the a".split()


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 60))) for _ in range(100)]
    (folder / "texts.txt").write_text("\n\n".join(texts) + "\n", "utf-8")
    tokenizer = tiny_tokenizer()
    return pack(Corpus.at(folder / "texts.txt"), tokenizer, 32, folder / "packed").opened(folder / "packed")


def collate(seed: int = 0, **settings) -> TextCollator:
    return TextCollator(tiny_tokenizer(), MaskedLM(), Masked(**settings), seed)


def by_block(batches) -> dict[int, tuple]:
    """What was read and asked for in each block, without padding."""
    found = {}
    for batch in batches:
        for i, number in enumerate(batch["id"]):
            real = batch["attention_mask"][i].bool()
            found[number] = batch["input_ids"][i][real].tolist(), batch["labels"][i][real].tolist()
            assert (batch["labels"][i][~real] == -100).all(), "padding is never asked for"
            assert (batch["input_ids"][i][~real] == 0).all()
    return found


def test_a_share_of_the_tokens_is_hidden_in_three_ways():
    tokens = torch.randint(len(SPECIAL), len(VOCABULARY), (400, 128), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, -1] = 2, 3
    hide = Hiding(Masked(), tiny_tokenizer(), 0)
    read, hidden = hide(tokens, torch.ones_like(tokens), torch.arange(400), torch.zeros(400, dtype=torch.long))
    chosen = hidden != -100
    assert (hidden[chosen] == tokens[chosen]).all()
    assert (read[~chosen] == tokens[~chosen]).all()
    assert not chosen[:, [0, -1]].any(), "special tokens are not asked for"
    assert chosen.float().mean().item() == pytest.approx(0.15 * 126 / 128, abs=0.005)
    masked, stayed = (read == MASK) & chosen, (read == tokens) & chosen
    assert masked.sum().item() / chosen.sum().item() == pytest.approx(0.8, abs=0.02)
    other = chosen & ~masked & ~stayed
    others = len(WORDS)
    assert other.sum().item() / chosen.sum().item() == pytest.approx(0.1 * (others - 1) / others, abs=0.015)
    assert read[other].min() >= len(SPECIAL), "never by a special token"
    assert len(read[other].unique()) == others
    share = (
        Hiding(Masked(share=0.4), tiny_tokenizer(), 0)(
            tokens, torch.ones_like(tokens), torch.arange(400), torch.zeros(400, dtype=torch.long)
        )[1]
        != -100
    )
    assert share.float().mean().item() == pytest.approx(0.4 * 126 / 128, abs=0.01)
    assert share[chosen].all(), "who is hidden at 15 % is hidden at 40 %"


def test_batches_do_not_matter_and_epochs_and_seeds_do(blocks):
    rows = [blocks[i] for i in range(len(blocks))]
    one = by_block([collate()(rows)])
    few = by_block([collate()(rows[i : i + 3]) for i in range(0, len(rows), 3)])
    mixed = by_block([collate()(rows[i::7]) for i in range(7)])
    assert one == few == mixed
    assert by_block([collate(seed=1)(rows)]) != one
    later = by_block([collate()([row | {"epoch": 1} for row in rows])])
    differ = [later[number][1] != one[number][1] for number in one]
    assert np.mean(differ) > 0.8
    assert by_block([collate()([row | {"epoch": 1} for row in rows])]) == later


def test_every_epoch_of_a_loader_hides_other_words_and_the_same_again(blocks: Blocks):
    def epoch(number: int, processes: int = 1) -> dict[int, tuple]:
        found = {}
        for process in range(processes):
            order = ShuffledBlocks(blocks.lengths, 8, 0, blocks=blocks)
            loader = MicroBatchLoader(blocks, MicroBatches(order, 8, processes, process), collate())
            loader.set_epoch(number)
            found |= by_block([batch for batch in loader if not batch.get("idle")])
        return found

    first, second = epoch(0), epoch(1)
    assert first.keys() == second.keys() == set(range(len(blocks)))
    assert sum(first[n][1] != second[n][1] for n in first) > 0.8 * len(blocks)
    assert epoch(1) == second
    assert epoch(0, processes=2) == first
    blocks.epoch = 0


def test_the_tokens_of_a_word_are_hidden_together():
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *PIECES])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    ids = torch.tensor([tokenizer("goods badinged the filmings a plot bads")["input_ids"]] * 300)
    real, rows = torch.ones_like(ids), torch.arange(300)
    words = [[1, 2], [3, 4, 5], [6], [7, 8, 9], [10], [11], [12, 13]]
    assert ids.shape[1] == 15
    for unit in ("tokens", "words"):
        hidden = Hiding(Masked(unit=unit), tokenizer, 0)(ids, real, rows, torch.zeros_like(rows))[1] != -100
        together = all((hidden[:, w].sum(1) % len(w) == 0).all() for w in words)
        assert together == (unit == "words")
        assert hidden.float().mean().item() == pytest.approx(0.15 * 13 / 15, abs=0.03)


@pytest.mark.parametrize("mark", ["Ġ", "▁"])
def test_vocabularies_that_mark_the_beginning_of_a_word(mark):
    tokens = [*SPECIAL, f"{mark}good", "s", f"{mark}film", "ing", "ed"]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", cls_token="[CLS]")
    ids = torch.tensor([[2, 5, 6, 7, 8, 9]] * 300)
    hidden = Hiding(Masked(unit="words"), tokenizer, 0)(ids, torch.ones_like(ids), torch.arange(300), torch.zeros(300))
    chosen = hidden[1] != -100
    assert (chosen[:, 1] == chosen[:, 2]).all()
    assert (chosen[:, 3:].sum(1) % 3 == 0).all()
    assert not chosen[:, 0].any()
    assert (chosen[:, 1] != chosen[:, 3]).any()


def test_a_tokenizer_without_a_mask_token_cannot_hide():
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(UserError, match="view: masked hides words behind the tokenizer's mask token"):
        TextCollator(tokenizer, MaskedLM(), Masked(), 0)
    TextCollator(tokenizer, CausalLM(), None, 0)


def test_draws_are_uniform_and_each_its_own():
    rows, columns = np.arange(300), np.arange(200)
    numbers = drawn(0, rows, columns, "x")
    assert ((numbers >= 0) & (numbers < 1)).all()
    counts = np.histogram(numbers, 20, (0, 1))[0] / numbers.size
    assert np.abs(counts - 0.05).max() < 0.004
    flat = numbers - numbers.mean()
    for one, two in ((flat[1:], flat[:-1]), (flat[:, 1:], flat[:, :-1]), (flat, drawn(0, rows, columns, "y") - 0.5)):
        assert abs((one * two).mean()) < 0.002
    assert len(np.unique(drawn_bits(0, rows, columns, "x"))) == numbers.size
    assert (drawn(0, rows[7:9], columns[5:6], "x") == numbers[7:9, 5:6]).all()

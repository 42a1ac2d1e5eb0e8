"""Hidden words: which tokens of a batch a masked language model is asked for, and what it reads in their place."""

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from layerstill.errors import UserError
from layerstill.heads.head import IGNORED
from layerstill.knowledge.views import Masked
from layerstill.randomness import drawn, drawn_bits

MASKED, REPLACED = 0.8, 0.9
"""Draws below the first become the mask token, those from there up to the second another token, the others stay."""
CONTINUES = "##"
BEGINS = ("\u2581", "\u0120")
"""How vocabularies mark that a token goes on with a word, or begins one."""


class Hiding:
    """Hides tokens. What happens to one is a function of the seed, the epoch, its block and its place there alone.

    So neither batches nor processes nor a resume change it. UserError for a tokenizer without a mask token.
    """

    def __init__(self, view: Masked, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        if tokenizer.mask_token_id is None:
            raise UserError(
                "view: masked hides words behind the tokenizer's mask token, and this one has none; set view: clean, "
                'or name one in tokenizer_config.json, for example "mask_token": "[MASK]"'
            )
        self.view = view
        self.seed = seed
        self._mask = int(tokenizer.mask_token_id)
        named = tokenizer.get_vocab()
        tokens = [""] * (1 + max(named.values()))  # some vocabularies leave numbers out
        for token, number in named.items():
            tokens[number] = token
        self._special = np.array([not token for token in tokens])
        self._special[[number for number in tokenizer.all_special_ids if number < len(tokens)]] = True
        self._ordinary = np.flatnonzero(~self._special)
        self._goes_on = _goes_on(tokens)

    def __call__(self, ids: Tensor, real: Tensor, blocks: Tensor, epochs: Tensor) -> tuple[Tensor, Tensor]:
        """What models read of `ids` `(B, N)`, and the hidden tokens `(B, N)`, -100 elsewhere.

        `real` `(B, N)` says which tokens are no padding, `blocks` and `epochs` `(B,)` what the rows are.
        """
        tokens = ids.numpy()
        places = np.arange(tokens.shape[1])
        may = real.numpy().astype(bool) & ~self._special[tokens]
        # A block number and an epoch make one row number; 2^40 blocks are more than any corpus has.
        rows = blocks.numpy().astype(np.uint64) + (epochs.numpy().astype(np.uint64) << np.uint64(40))
        chosen = drawn(self.seed, rows, places, "hidden") < self.view.share
        if self.view.unit == "words":
            chosen = np.take_along_axis(chosen, self._begins(tokens, may), 1)
        chosen &= may
        how = drawn(self.seed, rows, places, "hidden how")
        others = self._ordinary[drawn_bits(self.seed, rows, places, "hidden by") % np.uint64(len(self._ordinary))]
        read = np.where(chosen & (how < MASKED), self._mask, tokens)
        read = np.where(chosen & (how >= MASKED) & (how < REPLACED), others, read)
        return torch.from_numpy(read), torch.from_numpy(np.where(chosen, tokens, IGNORED))

    def _begins(self, tokens: np.ndarray, may: np.ndarray) -> np.ndarray:
        """`(B, N)`: the place where the word of each token begins."""
        after_ordinary = np.pad(may[:, :-1], ((0, 0), (1, 0)))
        begins = ~(self._goes_on[tokens] & after_ordinary)
        found: np.ndarray = np.maximum.accumulate(np.where(begins, np.arange(tokens.shape[1]), 0), 1)
        return found


def _goes_on(tokens: list[str]) -> np.ndarray:
    """`(V,)` boolean: which tokens of a vocabulary go on with the word before them."""
    if any(token.startswith(CONTINUES) for token in tokens):
        return np.array([token.startswith(CONTINUES) for token in tokens])
    if any(token.startswith(BEGINS) for token in tokens):
        return np.array([not token.startswith(BEGINS) for token in tokens])
    return np.zeros(len(tokens), bool)

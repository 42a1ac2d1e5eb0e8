"""A second tiny tokenizer: it cuts the words of `tests.tiny` into pieces, and numbers its tokens otherwise."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from layerstill.heads import Head
from tests.tiny import WORDS, tiny_model

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LONG = [word for word in WORDS if len(word) > 3]
PIECES = dict.fromkeys(
    ["##y", *(w for w in WORDS if len(w) <= 3), *(w[:2] for w in LONG), *(f"##{w[2:]}" for w in LONG)]
)
VOCABULARY = [*SPECIAL, *reversed(PIECES)]


def other_tokenizer(longest: int = 60) -> PreTrainedTokenizerFast:
    """Words of four letters and more become two pieces; padding is number 1."""
    numbers = {piece: number for number, piece in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordPiece(numbers, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=longest,
    )


def other_model(family: str = "roberta", head: Head | None = None, **config):
    """A tiny random model that reads its tokens."""
    sizes = {"layers": 3, "width": 32, "vocab_size": len(VOCABULARY), "pad_token_id": 1}
    return tiny_model(family, seed=5, head=head, **{**sizes, **config})


def save_other(folder: Path, family: str = "roberta", head: Head | None = None, **config) -> Path:
    """Such a model with its tokenizer as a folder."""
    other_model(family, head, **config).save_pretrained(folder)
    other_tokenizer().save_pretrained(folder)
    return folder

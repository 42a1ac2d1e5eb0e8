"""Smaller vocabularies: a student keeps the tokens that its training texts need.

WordPiece takes the longest piece that fits and Unigram the most probable cut, so leaving out pieces that the training
texts never use changes none of their tokens. Both models read the student's tokens; the teacher looks each of them up
under its own number. Byte-pair vocabularies are built from merges and are refused.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import Tokenizer
from transformers import PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from layerstill.errors import UserError


@dataclass(frozen=True)
class Vocabulary:
    """A smaller tokenizer; `kept[i]` is the source's number of its token `i`."""

    tokenizer: PreTrainedTokenizerBase
    kept: list[int]

    def renumber(self, config: PretrainedConfig) -> None:
        """Set vocabulary size and special tokens of the student's configuration."""
        number = {old: new for new, old in enumerate(self.kept)}
        config.vocab_size = len(self.kept)
        for field, value in list(config.to_dict().items()):
            if field.endswith("_token_id") and isinstance(value, int):
                setattr(config, field, number.get(value))

    def notice(self, whole: PreTrainedTokenizerBase, texts: Sequence[tuple[str, ...]]) -> str:
        """How large it is beside the tokenizer that it was made of, and what becomes of texts of dev with it."""
        pairs = [(whole.tokenize(" ".join(text)), self.tokenizer.tokenize(" ".join(text))) for text in texts]
        unknown = str(self.tokenizer.unk_token)
        other = sum(before != after for before, after in pairs)
        lost = sum(after.count(unknown) > before.count(unknown) for before, after in pairs)
        return (
            f"student.vocabulary: {len(self.kept):,} of {len(whole):,} tokens are kept; {other} of {len(pairs)} dev "
            f"texts are cut into other tokens than before, and {lost} of these hold characters that are now unknown"
        )


def trim_vocabulary(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[tuple[str, ...]],
    size: int | Literal["train"],
    padding_stays: bool = False,
) -> Vocabulary:
    """Keep special tokens, the characters of `texts`, and the tokens of `texts`: all (`train`) or the most frequent.

    `padding_stays`: the padding token keeps its number, from which some models count their positions.
    UserError for a tokenizer that cannot be trimmed, or a size that leaves no room for characters.
    """
    refuse_untrimmable(tokenizer)
    counts: Counter[int] = Counter(
        int(number)
        for row in texts
        for text in row
        for number in tokenizer(text, add_special_tokens=False)["input_ids"]
    )
    return keep_tokens(tokenizer, counts, size, padding_stays)


def refuse_untrimmable(tokenizer: PreTrainedTokenizerBase) -> None:
    """UserError for a tokenizer that cannot be trimmed."""
    kind = _state_of(tokenizer)["model"]["type"]
    if kind not in {"WordPiece", "WordLevel", "Unigram"}:
        raise UserError(
            f"student.vocabulary: a {kind} tokenizer cannot be trimmed, only WordPiece, WordLevel and Unigram; "
            "leave student.vocabulary out"
        )


def _state_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return json.loads(backend.to_str()) if backend is not None else {"model": {"type": "Python code"}}


def keep_tokens(
    tokenizer: PreTrainedTokenizerBase,
    counts: Mapping[int, int],
    size: int | Literal["train"],
    padding_stays: bool = False,
    texts: str = "the training texts",
) -> Vocabulary:
    """As `trim_vocabulary`, where it has been counted how often texts use each token; unused ones are not in `counts`.

    `texts` is what messages call them.
    """
    refuse_untrimmable(tokenizer)
    state = _state_of(tokenizer)
    names: dict[int, str] = {number: token for token, number in tokenizer.get_vocab().items()}
    characters = set().union(*(names[number] for number in counts))
    prefix = state["model"].get("continuing_subword_prefix") or ""
    needed: set[int] = {entry["id"] for entry in state["added_tokens"]} | set(tokenizer.all_special_ids)
    needed |= {n for n, token in names.items() if len(token.removeprefix(prefix)) == 1 and token[-1] in characters}
    needed |= _needed_by_model(state["model"], tokenizer.get_vocab())
    if padding_stays:
        needed |= set(range(tokenizer.pad_token_id))
    ranked = sorted(counts.keys() - needed, key=lambda n: (-counts[n], n))
    if size != "train":
        if size < len(needed):
            raise UserError(
                f"student.vocabulary {size}: special tokens and characters of {texts} are {len(needed)}; "
                f"choose {len(needed)} to {len(needed) + len(ranked)}, or train"
            )
        ranked = ranked[: size - len(needed)]
    kept = sorted(needed | set(ranked))
    return Vocabulary(_rebuilt(tokenizer, state, {old: new for new, old in enumerate(kept)}), kept)


def _needed_by_model(model: dict[str, Any], number: dict[str, int]) -> set[int]:
    """The unknown token; and Unigram's least probable piece, whose score is a measure for unknown characters."""
    if model["type"] != "Unigram":
        return {number[model["unk_token"]]}
    lowest = min(range(len(model["vocab"])), key=lambda i: model["vocab"][i][1])
    return {lowest} | ({model["unk_id"]} if model["unk_id"] is not None else set())


def _rebuilt(
    tokenizer: PreTrainedTokenizerBase, state: dict[str, Any], number: dict[int, int]
) -> PreTrainedTokenizerBase:
    model = state["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for old, entry in enumerate(model["vocab"]) if old in number]
        model["unk_id"] = None if model["unk_id"] is None else number[model["unk_id"]]
    else:
        model["vocab"] = {token: number[old] for token, old in model["vocab"].items() if old in number}
    for entry in state["added_tokens"]:
        entry["id"] = number[entry["id"]]
    _renumber_specials(state["post_processor"], number)
    state["truncation"] = state["padding"] = None
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        clean_up_tokenization_spaces=False,
        **tokenizer.special_tokens_map,
    )


def _renumber_specials(processor: Any, number: dict[int, int]) -> None:
    """Numbers of special tokens inside post-processors: `{"ids": [101]}` and `["[SEP]", 102]`."""
    if isinstance(processor, dict):
        if "ids" in processor:
            processor["ids"] = [number[old] for old in processor["ids"]]
        for value in processor.values():
            _renumber_specials(value, number)
    elif isinstance(processor, list):
        if len(processor) == 2 and isinstance(processor[0], str) and isinstance(processor[1], int):
            processor[1] = number[processor[1]]
        for value in processor:
            _renumber_specials(value, number)

"""Tiny random models of every supported family, and a tokenizer that knows a few words."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from layerstill.heads import Classes, Head
from layerstill.knowledge.memory import Examples
from layerstill.names import shipped_recipes
from layerstill.recipe import Recipe

WORDS = "good bad fine poor great awful film plot actor scene the a was is very not and but we they".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = SPECIAL + WORDS
EXAMPLES = Examples([i % 3 for i in range(64)])
"""Training examples of which a `batch` has the first, for what remembers them."""
ENCODERS = [
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "electra",
    "albert",
    "distilbert",
    "modernbert",
    "mpnet",
    "deberta-v2",
]
DECODERS = ["llama", "qwen3", "gemma3_text", "gpt2", "opt"]
FAMILIES = ENCODERS + DECODERS


def task_recipes() -> list[str]:
    """The recipes that come along for a task; others hide words of running text."""
    return [name for name in shipped_recipes() if not any(stage.hiding for stage in Recipe.load(name).stages)]


def tiny_config(family: str, layers: int = 4, width: int = 48, heads: int = 4, labels: int = 3, **extra):
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 64,
        "vocab_size": len(VOCABULARY),
        "pad_token_id": 0,
        "num_labels": labels,
    }
    sizes |= _special(family, layers, width, heads)
    return AutoConfig.for_model(family, **{**sizes, **extra})


def _special(family: str, layers: int, width: int, heads: int) -> dict:
    edges = {"bos_token_id": 2, "eos_token_id": 3}
    if family == "distilbert":
        return {"hidden_dim": 2 * width}
    if family in {"electra", "albert"}:
        return {"embedding_size": width // 4}
    if family == "modernbert":
        return {"local_attention": 8, "cls_token_id": 2, "sep_token_id": 3, **edges}
    if family == "deberta-v2":
        relative = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8}
        return {**relative, "norm_rel_ebd": "layer_norm", "share_att_key": True, "pooler_hidden_size": width}
    if family == "llama":
        return {"num_key_value_heads": heads // 2, **edges}
    if family in {"qwen3", "gemma3_text"}:
        # A head width of its own: heads times head width is not the hidden size.
        grouped = {
            "num_key_value_heads": heads // 2,
            "head_dim": 16,
            "sliding_window": 4,
            "use_sliding_window": True,
            **edges,
        }
        return {**grouped, "layer_types": [("sliding_attention", "full_attention")[i % 2] for i in range(layers)]}
    if family == "gpt2":
        return {"n_inner": 2 * width, **edges}
    return {"ffn_dim": 2 * width, "word_embed_proj_dim": width, **edges} if family == "opt" else {}


def no_dropout(family: str) -> dict[str, float]:
    """Settings that switch off every kind of dropout that a family has."""
    return {n: 0.0 for n, v in tiny_config(family).to_dict().items() if re.search("drop|_pdrop", n) and v is not None}


def tiny_model(
    family: str = "bert", seed: int = 0, sharp: float = 4.0, head: Head | None = None, **config
) -> PreTrainedModel:
    """A random model whose attention is not flat: weights are scaled by `sharp`."""
    torch.manual_seed(seed)
    model = (head or Classes()).auto_class.from_config(tiny_config(family, **config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.mul_(sharp)
    return model.eval()


def tiny_tokenizer(pair_types: bool = True) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if pair_types else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=names,
        model_max_length=64,
    )


def save_tiny(folder: Path, family: str = "bert", positions: int = 64, names: Sequence[str] = (), **config) -> Path:
    """A tiny model with its tokenizer as a folder that commands can be given; `names` are those of its outputs."""
    labels = config.setdefault("labels", len(names) or 3)
    model = tiny_model(family, max_position_embeddings=positions, **config)
    if labels > 1:
        usual = ["bad", "fine", "good"][:labels] if labels <= 3 else [f"class {i}" for i in range(labels)]
        names = names or usual
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: i for i, name in enumerate(names)}
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer(family in {"bert", "electra"})
    tokenizer.model_max_length = positions
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_masked_lm(folder: Path, family: str = "bert", positions: int = 64, tokenizer=None, **config) -> Path:
    """A tiny random masked language model, or a causal one of a decoder, as `save_tiny`."""
    torch.manual_seed(0)
    tokenizer = tokenizer or tiny_tokenizer(family in {"bert", "electra"})
    tokenizer.model_max_length = positions
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": positions}
    auto = AutoModelForCausalLM if family in DECODERS else AutoModelForMaskedLM
    model = auto.from_config(tiny_config(family, **{**sizes, **config}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def batch(rows: int = 4, tokens: int = 9, lengths: list[int] | None = None, seed: int = 1, labels: int = 3) -> dict:
    """Random token ids, right-padded."""
    rng = torch.Generator().manual_seed(seed)
    lengths = lengths or [tokens, tokens - 2, tokens - 5, tokens - 1][:rows]
    ids = torch.randint(len(SPECIAL), len(VOCABULARY), (rows, tokens), generator=rng)
    mask = (torch.arange(tokens)[None] < torch.tensor(lengths)[:, None]).long()
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "labels": torch.randint(0, labels, (rows,), generator=rng),
        "id": torch.arange(rows),
    }


def write_csv(path: Path, rows: int = 24, seed: int = 0, two_texts: bool = False) -> Path:
    """A small learnable data set: the label is the first word's mood."""
    rng = torch.Generator().manual_seed(seed)
    moods = {"good": ["good", "great"], "bad": ["bad", "awful"], "fine": ["fine", "poor"]}
    lines = ["text,other,label" if two_texts else "text,label"]
    for i in range(rows):
        label = list(moods)[i % 3]
        words = [
            WORDS[int(j)]
            for j in torch.randint(6, len(WORDS), (int(torch.randint(2, 9, (1,), generator=rng)),), generator=rng)
        ]
        text = " ".join([moods[label][i % 2], *words])
        lines.append(f"{text},{' '.join(words[:2])},{label}" if two_texts else f"{text},{label}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


TAGS = ("O", "B-MOOD", "I-MOOD", "B-THING", "I-THING")


def tagged_sentences(rows: int = 24, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """Words and tags that follow from them: good and bad are moods, also "very good"; "film-plot" is one word."""
    rng = torch.Generator().manual_seed(seed)
    moods, things, others = (
        "good bad great awful".split(),
        "film plot actor film-plot".split(),
        "a was is but we".split(),
    )
    chunks = [([w], ["B-MOOD"]) for w in moods] + [(["very", w], ["B-MOOD", "I-MOOD"]) for w in moods]
    chunks += [([w], ["B-THING"]) for w in things] + [(["the", w], ["B-THING", "I-THING"]) for w in things]
    chunks += [([w], ["O"]) for w in others] * 2
    sentences = []
    for _ in range(rows):
        drawn = torch.randint(len(chunks), (int(torch.randint(2, 7, (1,), generator=rng)),), generator=rng)
        chosen = [chunks[int(i)] for i in drawn]
        sentences.append(([w for words, _ in chosen for w in words], [tag for _, tags in chosen for tag in tags]))
    return sentences


def write_conll(path: Path, rows: int = 24, seed: int = 0) -> Path:
    """A small learnable data set of tagged words, one a line."""
    sentences = tagged_sentences(rows, seed)
    text = "\n".join("".join(f"{w}\t{t}\n" for w, t in zip(*pair, strict=True)) for pair in sentences)
    path.write_text(text, "utf-8")
    return path


def save_teacher_and_data(folder: Path, name: str = "teacher", layers: int = 3) -> Path:
    """A tiny model called `name` in the folder, and `data` with a train and a dev split beside it."""
    save_tiny(folder / name, layers=layers)
    (folder / "data").mkdir()
    for split, seed in (("train", 0), ("dev", 1)):
        write_csv(folder / "data" / f"{split}.csv", seed=seed)
    return folder

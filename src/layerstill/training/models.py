"""Load models and tokenizers safely, and see that they agree with a task before an hour is spent."""

import copy
import hashlib
import logging
import re
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.families import depth_of, family_of, inputs_of
from layerstill.heads import Classes, Head, head_of
from layerstill.heads.body import Body
from layerstill.students.build import prefix_of
from layerstill.training.model_files import first_line, held_elements, refuse_folder

log = logging.getLogger("layerstill")

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
DEEPEST = 1000
SPECIAL = ("bos", "eos", "cls", "sep", "unk", "mask")


def load_config(name: str, head: Head | None = None, weights: bool = True) -> PretrainedConfig:
    """Configuration of a local folder or a hub id; UserError if no model of a proven family can be built from it.

    The model is one with this head, or without one a bare body. Without `weights` a folder need not hold any.
    """
    refuse_folder(name, weights)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # a hostile config.json makes transformers raise anything; it is the file that is wrong
        where = (
            "config.json cannot be used: "
            if Path(name).exists()
            else "no such folder, and it could not be loaded from the hub: "
        )
        code = "it asks for code of its own, which is never run: " if "custom code" in str(error) else ""
        raise UserError(f"model {name}: {where}{code}{first_line(error)}") from None
    family_of(config)
    _refuse_unbuildable(name, config, AutoModel if head is None else head.auto_class)
    return config


def _refuse_unbuildable(name: str, config: PretrainedConfig, auto_class: Any) -> None:
    """UserError unless the configuration describes a model, and one of about the size of the weights beside it."""
    depth = depth_of(config)
    if not 0 < depth <= DEEPEST:
        raise UserError(f"model {name}: config.json asks for {depth} layers; 1 to {DEEPEST} are possible")
    if not all(isinstance(a, str) for a in _architectures(config)):
        raise UserError(f"model {name}: config.json: architectures is {config.architectures!r}, not a list of names")
    if sorted(config.id2label) != list(range(config.num_labels)):
        raise UserError(
            f"model {name}: config.json: id2label numbers its labels {', '.join(map(str, config.id2label))}; "
            f"they must be numbered 0 to {config.num_labels - 1}"
        )
    if len(set(map(str, config.id2label.values()))) < config.num_labels:
        names = ", ".join(map(str, config.id2label.values()))
        raise UserError(
            f"model {name}: config.json: id2label names a label twice: {names}; give each a name of its own"
        )
    padding = getattr(config, "pad_token_id", None)
    if padding is not None and not -config.vocab_size <= padding < config.vocab_size:
        raise UserError(
            f"model {name}: config.json says that token {padding} is padding and that there are {config.vocab_size} "
            "tokens; correct pad_token_id or vocab_size"
        )
    try:
        with torch.device("meta"):
            parameters = auto_class.from_config(copy.deepcopy(config)).num_parameters()
    except Exception as error:  # sizes and names go unchecked into whatever module reads them first
        kind = type(error).__name__
        if "Unrecognized configuration class" in str(error):
            raise UserError(
                f"model {name}: transformers has no {auto_class.__name__} of family {config.model_type!r}; "
                "use a model of another family for this task"
            ) from None
        raise UserError(f"model {name}: config.json describes no model ({kind}: {first_line(error)})") from None
    held = held_elements(name)
    if held is not None and parameters > 2 * held + 1_000_000:
        raise UserError(
            f"model {name}: config.json describes {parameters:,} parameters and its weights hold {held:,}; "
            "they do not belong together"
        )


def load_tokenizer(name: str, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model; UserError if it is missing or belongs to another model."""
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in VOCABULARIES):
        # transformers would make up a tokenizer that knows five tokens.
        raise UserError(f"model {name}: no tokenizer in it, looked for {', '.join(VOCABULARIES)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        tokens = tokenizer.get_vocab()
    except Exception as error:  # as for config.json
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise UserError(f"tokenizer of {name}: cannot be read: {kind}{first_line(error)}") from None
    highest = max(tokens.values(), default=-1)
    _refuse_added_without_embeddings(name, config, tokenizer, highest)
    if not config.vocab_size / 2 < len(tokens) or highest >= config.vocab_size:
        raise UserError(
            f"model {name}: its tokenizer knows {len(tokens)} tokens, numbered up to {highest}, and its embeddings "
            f"{config.vocab_size}; the tokenizer belongs to another model"
        )
    if not isinstance(tokenizer.model_max_length, int | float):
        raise UserError(
            f"tokenizer of {name}: model_max_length is {tokenizer.model_max_length!r}, not a number of tokens"
        )
    if tokenizer.pad_token_id is None and family_of(config).causal and tokenizer.eos_token is not None:
        # Decoders are trained without padding; their heads look for the last token that is none.
        tokenizer.pad_token = tokenizer.eos_token
        log.info("note: tokenizer of %s: it has no padding token, its end token %r is used", name, tokenizer.eos_token)
    _refuse_other_padding(name, config, tokenizer)
    if "token_type_ids" not in inputs_of(config):
        tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n != "token_type_ids"]
    return tokenizer


def _refuse_added_without_embeddings(
    name: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, highest: int
) -> None:
    """UserError for tokens that were added to a tokenizer, and for which its model was given no embeddings."""
    added = sorted((number, token) for token, number in tokenizer.get_added_vocab().items())
    beyond = [token for number, token in added if number >= config.vocab_size]
    if not beyond or len(beyond) < sum(number >= config.vocab_size for number in tokenizer.get_vocab().values()):
        return
    some = ", ".join(map(repr, beyond[:5])) + (f" and {len(beyond) - 5} more" if len(beyond) > 5 else "")
    raise UserError(
        f"model {name}: its tokenizer has {highest + 1} tokens and the model {config.vocab_size} embeddings: {some} "
        f"{'was' if len(beyond) == 1 else 'were'} added, and the model was not resized; load it, call "
        f"model.resize_token_embeddings({highest + 1}), save it there with save_pretrained, and fine-tune it if your "
        "texts hold such tokens"
    )


def with_weights_in(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The same model, its weights converted in place; buffers stay, for rotary frequencies in bf16 turn positions."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


def adopt_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Tell a model that names no padding token the tokenizer's; decoders' heads cannot do without."""
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def _refuse_other_padding(name: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"tokenizer of {name}: it has no padding token, so texts cannot be put into batches; "
            'name one in tokenizer_config.json, for example "pad_token": "[PAD]"'
        )
    theirs = getattr(config, "pad_token_id", None)
    if theirs is not None and theirs != tokenizer.pad_token_id:
        raise UserError(
            f"model {name}: config.json says that token {theirs} is padding, the tokenizer pads with "
            f"{tokenizer.pad_token_id} ({tokenizer.pad_token!r}); correct pad_token_id, or "
            "use the model's own tokenizer"
        )


def special_token_notices(name: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What is odd about a model's special tokens, though it can be meant."""
    notices = []
    for kind in SPECIAL:
        mine, theirs = getattr(tokenizer, f"{kind}_token_id", None), getattr(config, f"{kind}_token_id", None)
        if isinstance(theirs, int) and mine is not None and mine != theirs:
            notices.append(
                f"model {name}: its {kind} token is number {theirs} in config.json and {mine} in the tokenizer"
            )
    first = tokenizer("a")["input_ids"][:1]
    if tokenizer.cls_token_id is not None and first != [tokenizer.cls_token_id]:
        notices.append(f"tokenizer of {name}: it puts no {tokenizer.cls_token} before a text, though it has one")
    return notices


def load_for_finetuning(name: str, task: Task) -> PreTrainedModel:
    """A pre-trained model with a head for the task: its own if it has one with as many outputs, else a new one."""
    config = load_config(name, task.head)
    task.head.describe(config, task.labels)
    return _load(name, config, task.head, new_head=True, start=task.head.start(task.splits["train"].labels))


def load_blank(name: str, task: Task) -> PreTrainedModel:
    """A random model with a head for the task, from a folder that only describes it."""
    config = load_config(name, task.head, weights=False)
    task.head.describe(config, task.labels)
    model: PreTrainedModel = task.head.auto_class.from_config(config)
    start = task.head.start(task.splits["train"].labels)
    if start is not None:
        _start_biases(model, [name for name, _ in model.named_parameters()], start)
    return model.float()


OTHER_HEADS = {
    "ForQuestionAnswering": "it marks the answer in a text",
    "ForMultipleChoice": "it picks one of several continuations",
    "ForNextSentencePrediction": "it says whether a sentence follows another",
    "ForConditionalGeneration": "it writes text",
    "ForCausalLM": "it continues a text",
    "LMHeadModel": "it continues a text",
    "ForMaskedLM": "it fills in masked words",
    "ForPreTraining": "it fills in masked words",
}
"""What models do whose heads are none of ours, by the ending of their architecture."""


def require_head(name: str, config: PretrainedConfig, head: Head) -> None:
    """UserError for a model that does not have this head."""
    if head.fits(config):
        return
    found = head_of(config)
    if found is None:
        architectures = _architectures(config)
        for ending, gives in OTHER_HEADS.items():
            if any(ending in one for one in architectures):
                raise UserError(
                    f"model {name} is a {architectures[0]}: {gives}, which is not one of the kinds of task here "
                    "(--task classification, regression, multilabel, tokens); fine-tune its encoder on one of them: "
                    "layerstill finetune"
                )
        raise UserError(
            f"model {name} has no task head ({', '.join(architectures) or 'no architecture named'}); "
            "fine-tune it first: layerstill finetune"
        )
    unsaid = config.problem_type is None and found.architecture == head.architecture and config.num_labels > 1
    said = "" if config.problem_type is None else f" (problem_type {config.problem_type} in its config.json)"
    also = f'; if it was trained for that, write "problem_type": "{head.problem_type}" into its config.json'
    raise UserError(
        f"model {name}: its head gives {found.gives}{said}, and the task has "
        f"{head.gives}; use --task {found.word}, or fine-tune it on this task first: layerstill finetune"
        f"{also if unsaid else ''}"
    )


def load_fine_tuned(name: str, head: Head) -> PreTrainedModel:
    """A model with this head, trained; UserError if it has none or another."""
    config = load_config(name, head)
    require_head(name, config, head)
    return _load(name, config, head, new_head=False)


def load_with_its_head(name: str) -> PreTrainedModel:
    """A model with whatever head it has; UserError if it has none."""
    config = load_config(name)
    return load_fine_tuned(name, head_of(config) or Classes())


def load_body(name: str) -> PreTrainedModel:
    """A model without its head, if it has one; a pooler that it lacks is random."""
    return _load(name, load_config(name, Body()), Body(), new_head=True)


def load_language_model(name: str, head: Head) -> PreTrainedModel:
    """A model with this language head, trained; UserError if weights of it are missing."""
    return _load(name, load_config(name, head), head, new_head=False)


def load_masked_lm(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A masked language model and its tokenizer; UserError for a model without that head."""
    config = load_config(name)
    tokenizer = load_tokenizer(name, config)
    no_head = (
        f"model {name}: has no masked-language-model head ({', '.join(_architectures(config)) or 'none named'}); "
        "words are proposed by a pre-trained encoder such as bert-base-uncased"
    )
    if family_of(config).causal:
        raise UserError(no_head)
    try:
        model, report = AutoModelForMaskedLM.from_pretrained(
            name, config=config, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"model {name}: {first_line(error)}") from None
    except Exception as error:  # safetensors has an exception of its own for damaged files
        if type(error).__name__ != "SafetensorError":
            raise
        raise UserError(f"model {name}: model.safetensors is damaged ({first_line(error)})") from None
    if report["missing_keys"] or report["mismatched_keys"]:
        raise UserError(no_head)
    return model.float().eval(), tokenizer


def _architectures(config: PretrainedConfig) -> list[Any]:
    named = config.architectures or []
    return [named] if isinstance(named, str) else list(named)


def _load(
    name: str, config: PretrainedConfig, head: Head, new_head: bool, start: torch.Tensor | None = None
) -> PreTrainedModel:
    try:
        model, report = head.auto_class.from_pretrained(
            name,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"model {name}: {first_line(error)}") from None
    except Exception as error:  # safetensors has an exception of its own for damaged files
        if type(error).__name__ != "SafetensorError":
            raise
        raise UserError(f"model {name}: model.safetensors is damaged ({first_line(error)})") from None
    wrong = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    if start is not None:
        _start_biases(model, wrong, start)
    if new_head:
        body = prefix_of(model)
        wrong = [key for key in wrong if key.startswith(body) and "pooler" not in key]
    if wrong:
        raise UserError(
            f"model {name}: {len(wrong)} weights are missing or of another size than its config.json says, for "
            f"example {min(wrong)}; they would be random"
        )
    _look_at_foreign(name, config, sorted(report["unexpected_keys"]), new_head)
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"model {name}: {key} holds numbers that are not finite; the model is damaged")
    return model.float()


@torch.no_grad()
def _start_biases(model: PreTrainedModel, new: list[str], start: torch.Tensor) -> None:
    """Start the outputs' biases, if they are new and there are any, at `start` `(C,)`."""
    outputs = [p for n, p in model.named_parameters() if n in new and n.endswith(".bias") and p.shape == start.shape]
    if outputs:
        outputs[-1].copy_(start)


def _look_at_foreign(name: str, config: PretrainedConfig, foreign: list[str], new_head: bool) -> None:
    """Layers that config.json does not count are an error; other tensors without a place are worth a line."""
    numbered = re.compile(rf"(^|\.){re.escape(family_of(config).layers)}\.(\d+)\.")
    if layers := [key for key in foreign if (m := numbered.search(key)) and int(m[2]) >= depth_of(config)]:
        raise UserError(
            f"model {name}: its weights hold more layers than the {depth_of(config)} of config.json, for "
            f"example {layers[0]}; they do not belong together"
        )
    if foreign and not new_head:  # a pre-trained model leaves its old head behind, as it should
        log.warning(
            "note: model %s: %d tensors do not belong to it and are left out, for example %s",
            name,
            len(foreign),
            foreign[0],
        )


def fingerprint(name: str, config: PretrainedConfig) -> str:
    """Twelve hexadecimal digits of a model's weights, configuration and tokenizer, or of its hub revision."""
    digest = hashlib.sha256()
    kinds = ("*.safetensors", "config.json", "tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json")
    files = sorted({f for kind in kinds for f in Path(name).glob(kind)}) if Path(name).is_dir() else []
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size}".encode())
        try:
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
        except OSError as error:
            raise UserError(f"model {name}: {file.name} cannot be read: {error.strerror}") from None
    if not files:
        digest.update(f"{name}@{getattr(config, '_commit_hash', None)}".encode())
    return digest.hexdigest()[:12]

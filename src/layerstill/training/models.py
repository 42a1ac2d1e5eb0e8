"""Load models and tokenizers safely, and see that they agree with a task before an hour is spent."""

import hashlib
from dataclasses import replace
from pathlib import Path

from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.families import family_of

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")


def load_config(name: str) -> PretrainedConfig:
    """Configuration of a local folder or a hub id; UserError if there is none or its family is not proven."""
    _refuse_pickle(name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        where = "" if Path(name).exists() else "no such folder, and not to be had from the hub: "
        raise UserError(f"model {name}: {where}{_first_line(error)}") from None
    family_of(config)
    return config


def load_tokenizer(name: str, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model; UserError if it is missing or belongs to another model."""
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in VOCABULARIES):
        # transformers would make up a tokenizer that knows five tokens.
        raise UserError(f"model {name}: no tokenizer in it, looked for {', '.join(VOCABULARIES)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer of {name}: {_first_line(error)}") from None
    if not config.vocab_size / 2 < len(tokenizer) <= config.vocab_size:
        raise UserError(
            f"model {name}: its tokenizer knows {len(tokenizer)} tokens and its embeddings {config.vocab_size}; "
            "the tokenizer is another model's"
        )
    return tokenizer


def refuse_other_tokens(name: str, config: PretrainedConfig, teacher: PretrainedConfig, tokens: dict[str, int]) -> None:
    """UserError unless the model `name` numbers tokens, positions and segments as the teacher does."""
    theirs = load_tokenizer(name, config).get_vocab()
    if theirs != tokens:
        differing = sum(theirs.get(token) != number for token, number in tokens.items())
        raise UserError(
            f"--init-from {name}: {differing} of the teacher's {len(tokens)} tokens have another number there; "
            "the student reads what the teacher reads, so start it from a model with the same tokenizer"
        )
    for field in ("max_position_embeddings", "type_vocab_size"):
        mine, wanted = getattr(config, field, 0), getattr(teacher, field, 0)
        if mine < wanted:
            raise UserError(f"--init-from {name}: its {field} is {mine}, less than the teacher's {wanted}")


def load_for_finetuning(name: str, task: Task) -> PreTrainedModel:
    """A pre-trained model with a head for the task: its own if it has one with as many outputs, else a new one."""
    config = load_config(name)
    config.num_labels = 1 if task.kind == "regression" else len(task.labels)
    config.problem_type = "regression" if task.kind == "regression" else "single_label_classification"
    if task.labels:
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: i for i, label in enumerate(task.labels)}
    return _load(name, config, new_head=True)


def require_head(name: str, config: PretrainedConfig) -> None:
    """UserError for a model without a task head."""
    if not any("ForSequenceClassification" in a for a in config.architectures or ()):
        raise UserError(
            f"model {name} has no task head ({', '.join(config.architectures or ['no architecture named'])}); "
            "fine-tune it first: layerstill finetune"
        )


def load_fine_tuned(name: str) -> PreTrainedModel:
    """A model with a trained task head; UserError if it has none."""
    config = load_config(name)
    require_head(name, config)
    return _load(name, config, new_head=False)


def _load(name: str, config: PretrainedConfig, new_head: bool) -> PreTrainedModel:
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            name,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"model {name}: {_first_line(error)}") from None
    except Exception as error:  # safetensors has an exception of its own for damaged files
        if type(error).__name__ != "SafetensorError":
            raise
        raise UserError(f"model {name}: model.safetensors is damaged ({_first_line(error)})") from None
    wrong = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    if wrong and not new_head:
        raise UserError(
            f"model {name}: {len(wrong)} weights are missing or of another size than its config.json says, "
            f"{wrong[0]} for one; they would be random"
        )
    return model.float()


def _refuse_pickle(name: str) -> None:
    folder = Path(name)
    if not folder.exists():
        if folder.is_absolute() or name.startswith(".") or name.count("/") > 1:
            raise UserError(f"model {name}: no such folder")
        return
    if not (folder / "config.json").is_file():
        raise UserError(f"model {name}: no config.json in it; a model is a folder made by save_pretrained, or a hub id")
    if not list(folder.glob("*.safetensors")):
        pickles = [p.name for p in folder.glob("*.bin")]
        hint = f"{pickles[0]} is a pickle, which is never loaded; " if pickles else ""
        raise UserError(
            f"model {name}: no model.safetensors; {hint}save it with save_pretrained(safe_serialization=True)"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]


def agree_on_labels(task: Task, config: PretrainedConfig, who: str, subset: bool = False) -> tuple[Task, list[str]]:
    """The task with its classes in the model's order, and notices; UserError if they are different classes.

    Upper and lower case are not told apart. `subset`: the data need not have all of the model's classes.
    """
    if task.kind == "regression":
        if config.num_labels != 1:
            raise UserError(
                f"{who} has {config.num_labels} outputs, but task {task.name} is a regression with one score"
            )
        return task, []
    theirs = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    task, notices = _in_their_case(task, theirs, who)
    if theirs == task.labels:
        return task, notices
    if subset and set(task.labels) < set(theirs):
        return task.with_label_order(theirs), notices
    if len(theirs) != len(task.labels):
        raise UserError(
            f"{who} knows {len(theirs)} labels ({', '.join(theirs)}), the data have {len(task.labels)} "
            f"({', '.join(task.labels)}); fine-tune the teacher on this task"
        )
    if all(name == f"LABEL_{i}" for i, name in enumerate(theirs)):
        return task, [f"{who} does not name its labels; taking them in the order {', '.join(task.labels)}"]
    if set(theirs) == set(task.labels):
        notices.append(f"label order of {who} differs from the data's; using {', '.join(theirs)}")
        return task.with_label_order(theirs), notices
    raise UserError(
        f"{who} knows the labels {', '.join(theirs)}, the data have {', '.join(task.labels)}; "
        "fine-tune the teacher on this task, or rename the labels in the data"
    )


def _in_their_case(task: Task, theirs: tuple[str, ...], who: str) -> tuple[Task, list[str]]:
    """The task with label names that differ from the model's in upper and lower case only written as the model's."""
    folded = {name.casefold(): name for name in theirs}
    names = tuple(folded.get(name.casefold(), name) for name in task.labels)
    if names == task.labels or len(folded) < len(theirs) or len(set(names)) < len(names):
        return task, []
    positive = None if task.positive is None else folded.get(task.positive.casefold(), task.positive)
    notice = f"{who} writes its labels {', '.join(theirs)}; taking the data's {', '.join(task.labels)} for the same"
    return replace(task, labels=names, positive=positive), [notice]


def fingerprint(name: str, config: PretrainedConfig) -> str:
    """Twelve hexadecimal digits of a model's weights (a local folder) or of its hub revision."""
    digest = hashlib.sha256()
    files = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    for file in files:
        try:
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
        except OSError as error:
            raise UserError(f"model {name}: {file.name} cannot be read: {error.strerror}") from None
    if not files:
        digest.update(f"{name}@{getattr(config, '_commit_hash', None)}".encode())
    return digest.hexdigest()[:12]

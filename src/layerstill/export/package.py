"""What lies beside the models of an exported folder, so that it runs without torch, transformers and layerstill."""

import json
from importlib import resources
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from layerstill.atomic import write_json, write_text
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.export.runner import ABOUT

RUN = "run.py"


def write_package(
    folder: Path, task: Task, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> None:
    """Write `tokenizer.json`, which cuts and pads by itself, `config.json` and `run.py`.

    `config.json` is the model's own with a part `layerstill`: `head` (its kind and settings), `labels` in the order of
    outputs, `max_length` in tokens, `unknown`, the token of words that the tokenizer makes nothing of, and where they
    are known `text_columns`.
    UserError for a tokenizer that needs transformers.
    """
    write_text(folder / "tokenizer.json", _alone(tokenizer, max_length, task).to_str(pretty=False))
    about = {
        "head": task.head.record(),
        "labels": list(task.labels),
        "max_length": max_length,
        "unknown": tokenizer.unk_token or "?",
        **({"text_columns": task.source.text_columns} if task.source else {}),
    }
    write_json(folder / "config.json", json.loads(config.to_json_string()) | {ABOUT: about})
    code = resources.files("layerstill.export").joinpath("run_alone.py").read_text("utf-8")
    write_text(folder / RUN, code)


def _alone(tokenizer: PreTrainedTokenizerBase, max_length: int, task: Task) -> Tokenizer:
    if not tokenizer.is_fast:
        raise UserError(
            f"export: the tokenizer ({type(tokenizer).__name__}) runs in transformers only; "
            "a folder that runs alone needs a fast one, with a tokenizer.json"
        )
    alone = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    side = "right" if task.head.per_token else tokenizer.truncation_side  # as `encode` cuts
    alone.enable_truncation(max_length, strategy="longest_first", direction=side)
    alone.enable_padding(
        direction="right",
        pad_id=tokenizer.pad_token_id,
        pad_type_id=tokenizer.pad_token_type_id,
        pad_token=tokenizer.pad_token,
    )
    return alone

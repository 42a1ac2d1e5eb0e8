"""What a repository of the hub holds: an earlier upload of ours, which is known by its content, or something else."""

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi

from layerstill.acts.export_folder import RECORD
from layerstill.acts.upload import ONNX
from layerstill.reporting.model_card import CARD_MARK
from layerstill.result import RESULT_FILE

RECORDS = (RESULT_FILE, RECORD, f"{ONNX}/{RECORD}")
"""Files that say which version of layerstill wrote them; any tool may call a file so."""
PLAIN = {".gitattributes"}
"""What the hub puts there itself."""


def holds_ours(api: HfApi, repo: str, files: Iterable[str]) -> bool:
    """Whether one of a repository's files is a record that layerstill wrote."""
    return any(_is_record(_text(api, repo, name)) for name in RECORDS if name in set(files))


def card_is_ours(api: HfApi, repo: str, name: str) -> bool:
    """Whether a repository's card is one that layerstill wrote, and not a person."""
    return CARD_MARK in _text(api, repo, name)


def _text(api: HfApi, repo: str, name: str) -> str:
    with TemporaryDirectory() as place:
        return Path(api.hf_hub_download(repo, name, local_dir=place)).read_text("utf-8", "replace")


def _is_record(text: str) -> bool:
    try:
        said = json.loads(text)["environment"]["layerstill"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    return isinstance(said, str)

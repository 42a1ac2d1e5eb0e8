"""The act `push_to_hub`: a finished run as a repository of the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from layerstill.acts.repository import PLAIN, card_is_ours, holds_ours
from layerstill.acts.upload import CARD, gathered, written_here
from layerstill.errors import UserError
from layerstill.progress import our_bars_only
from layerstill.training.model_files import first_line

OPTION = "--push-to-hub"


@dataclass(frozen=True)
class Pushed:
    """A model on the hub."""

    url: str
    files: tuple[str, ...]
    """By their paths in the repository."""
    megabytes: float
    private: bool
    removed: tuple[str, ...] = ()
    """Files of an earlier upload that this model does not have."""
    card_kept: bool = False
    """Whether the card there was written by a person and stays."""


def refuse_unready(repo: str, public: bool = False) -> None:
    """UserError unless something could be uploaded to `repo` now: a name, a token that the hub knows, a network, and no
    repository that everybody sees, unless `public`.

    Asked before the work begins, because that may take hours.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UserError(f"{OPTION} {repo}: not the name of a repository; write USER/NAME") from None
    if repo.count("/") != 1:
        raise UserError(f"{OPTION} {repo}: say whose it is, USER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{OPTION} {repo}: HF_HUB_OFFLINE is set, so the hub is not asked; unset it, or leave this out")
    if get_token() is None:
        raise UserError(f"{OPTION} {repo}: no token of the hub is known here; run `hf auth login`, or set HF_TOKEN")
    with _explained(repo, "nothing was uploaded"):
        HfApi().whoami()
        try:
            info = HfApi().model_info(repo)
        except RepositoryNotFoundError:
            return
        if not info.private and not public:
            raise UserError(
                f"{OPTION} {repo}: this repository is public; add --public if they may see this model, or name another"
            )
        _files_of(HfApi(), repo, info)


def _files_of(api: HfApi, repo: str, info: ModelInfo) -> set[str]:
    """The files of a repository that is empty or ours; UserError if it holds anything else."""
    there = {one.rfilename for one in info.siblings or ()} - PLAIN
    if there and not holds_ours(api, repo, there):
        raise UserError(
            f"{OPTION} {repo}: the repository holds something else ({min(there)}) and no earlier upload of layerstill; "
            "name another, which is then created"
        )
    return there


@our_bars_only()
def push_to_hub(folder: str | Path, repo: str, public: bool = False) -> Pushed:
    """Upload a finished run, its export in `onnx` if there is one, and its card, in one commit.

    Only the model, its tokenizer, the card, the recipe, the result and the export go up; paths of this machine are cut
    down to their last part in all of them. What an earlier upload left there and this model does not have is deleted; a
    card that a person rewrote stays.

    Args:
        folder: of a run, or one that `export` wrote.
        repo: `USER/NAME`. It is made if it is not there, private unless `public`.
        public: whether everybody may see it.

    UserError for a run that is not complete, without a token or a network, and for a repository with anything else.
    """
    folder = Path(folder)
    files = gathered(folder)
    refuse_unready(repo, public)
    api = HfApi()
    with _explained(repo, f"{folder} is complete; the same command uploads it later"):
        api.create_repo(repo, private=not public, exist_ok=True)
        info = api.model_info(repo)
        there = _files_of(api, repo, info)
        kept = CARD in there and not card_is_ours(api, repo, CARD)
        if kept:
            files.pop(CARD, None)
        # What an earlier upload left there belongs to another model.
        stale = sorted(name for name in there - set(files) if written_here(name) and not (kept and name == CARD))
        operations = [CommitOperationDelete(name) for name in stale] + [
            CommitOperationAdd(name, BytesIO(content) if isinstance(content, bytes) else str(content))
            for name, content in files.items()
        ]
        api.create_commit(repo, operations, commit_message="Upload by layerstill")
    size = sum(len(one) if isinstance(one, bytes) else one.stat().st_size for one in files.values())
    address = f"{api.endpoint}/{repo}"
    return Pushed(address, tuple(files), round(size / 1e6, 1), bool(info.private), tuple(stale), kept)


def card_words(pushed: Pushed) -> str:
    """What is to be said of the card; nothing if the model's own went up."""
    if pushed.card_kept:
        return f", {CARD} there was edited and stays as it is"
    return "" if CARD in pushed.files else ", without a card, which only a run has"


@contextmanager
def _explained(repo: str, rest: str) -> Iterator[None]:
    """What goes wrong with the hub as one line."""
    try:
        yield
    except UserError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = {
            401: "the hub does not know the token; run `hf auth login`",
            403: "the token may not write there; make one that may, or name a repository of your own",
            404: "no such user or organisation",
        }.get(status, f"the hub answers {status}: {first_line(error)}")
        raise UserError(f"{OPTION} {repo}: {why}; {rest}") from None
    except OfflineModeIsEnabled:
        raise UserError(f"{OPTION} {repo}: HF_HUB_OFFLINE is set; {rest}") from None
    except Exception as error:  # httpx, ssl and sockets have errors of their own for no network
        module = type(error).__module__
        of_network = isinstance(error, OSError) and error.filename is None  # else it is of a file here
        if not of_network and not module.startswith(("httpx", "httpcore", "requests")):
            raise
        raise UserError(f"{OPTION} {repo}: the hub cannot be reached ({type(error).__name__}); {rest}") from None

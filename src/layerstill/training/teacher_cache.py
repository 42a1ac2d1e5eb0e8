"""The teacher cache: what a frozen teacher gives away on unchanged inputs, computed once and read from disk.

One folder below the cache directory belongs to one teacher, one set of tensors and one precision. It holds shards:
safetensors files with the tensors of some examples, unpadded, one after the other. Examples are found by a hash of
their tokens, so runs, seeds, subsets and studies share what they have in common. Shards are written whole or not at
all by one writer at a time; readers map them into memory. An example that is missing is an error, never a zero.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from layerstill.atomic import write_json, write_tensors
from layerstill.data.encode import Collator
from layerstill.errors import UserError
from layerstill.knowledge.bound_objective import BoundObjective
from layerstill.knowledge.capture import VECTORS, AttentionRecord, Captured, CapturePlan, Kept
from layerstill.knowledge.signals import pool_tokens
from layerstill.progress import Task
from layerstill.training.moving import to_device

Arithmetic = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Arithmetic, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Teacher = Callable[[CapturePlan, dict[str, Tensor], Tensor], Captured]
SHARDS = "shard-[0-9][0-9][0-9][0-9][0-9].safetensors"
SHARD_EXAMPLES = 2048
BATCH_EXAMPLES = 64


@dataclass(frozen=True)
class Contents(Kept):
    """What is kept of each example, and how it is stored."""

    per_token: bool = False
    """Whether every token has logits."""

    @classmethod
    def of(cls, objectives: Iterable[BoundObjective]) -> "Contents":  # type: ignore[override]  # of whom it is asked
        """What the teacher's side of these objectives needs; UserError if a cache cannot hold it."""
        kept, per_token = Kept(), False
        for o in objectives:
            if o.spec.consistent:
                continue
            if not o.spec.cacheable:
                why = (
                    "feeds the teacher mixed inputs, which are never the same twice"
                    if o.spec.mixes
                    else "counts padding, which depends on the batch"
                )
                raise UserError(f"objective {o.name!r} {why}")
            if not o.signal.gold:
                kept |= o.signal.keep(o.target_layers)
            per_token = o.head.per_token
        if per_token:  # which tokens are pooled is the head's affair, so whole states are kept
            kept = Kept(
                kept.plan | CapturePlan(hidden=frozenset(layer for layer, _ in kept.pooled)), vectors=kept.vectors
            )
        return cls(kept.plan, kept.pooled, kept.vectors, per_token)

    @property
    def capture(self) -> CapturePlan:
        """What the teacher must give away to fill the cache."""
        return self.plan | CapturePlan(hidden=frozenset(layer for layer, _ in self.pooled))

    def bytes_per_example(self, tokens: float, width: int, inner: int, classes: int, arithmetic: Arithmetic) -> float:
        """Expected size of one example of so many tokens."""
        of_token = width * len(self.plan.hidden) + inner * len(self.vectors)
        numbers = width * len(self.pooled) + classes * self.plan.logits * (tokens if self.per_token else 1)
        return tokens * of_token * DTYPES[arithmetic].itemsize + numbers * torch.float32.itemsize

    def ragged(self, name: str) -> bool:
        """Whether a stored tensor has a row for every token."""
        return name.split(".")[0] in {"hidden", *VECTORS} or (name == "logits" and self.per_token)

    def names(self) -> list[str]:
        """Names of the stored tensors."""
        whole = [f"hidden.{k}" for k in sorted(self.plan.hidden)]
        whole += [f"{name}.{k}" for k, name in sorted(self.vectors)]
        return whole + [f"pooled.{k}.{pool}" for k, pool in sorted(self.pooled)] + ["logits"] * self.plan.logits

    def __bool__(self) -> bool:
        return bool(self.plan or self.pooled)

    def __str__(self) -> str:
        pooled = [
            f"{pool} of layer {layer}" if layer else f"{pool} of embeddings" for layer, pool in sorted(self.pooled)
        ]
        return ", ".join([str(self.plan)] * bool(self.plan) + pooled)


@dataclass
class _Shard:
    tensors: dict[str, Tensor]
    offsets: list[int]
    lengths: list[int]


@dataclass
class TeacherCache:
    """What one teacher gives away, in `folder`.

    Args:
        directory: where caches lie; this one gets a folder of its own.
        teacher: fingerprint of the teacher's weights.
        contents: what is kept.
        arithmetic: how the teacher computes; that of the training, so that a cached teacher is the live one. States and
            vectors of tokens are kept in the same numbers; pooled states and logits in 32 bits.
    """

    directory: Path
    teacher: str
    contents: Contents
    arithmetic: Arithmetic = "fp32"
    places: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False)
    shards: list[_Shard] = field(default_factory=list, repr=False)
    names: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        settings = {
            "teacher": self.teacher,
            "tensors": self.contents.names(),
            **({"logits of": "tokens"} if self.contents.per_token and self.contents.plan.logits else {}),
            "arithmetic": self.arithmetic,
            "format": 4,  # 3: 16 bits were fp16, and nothing had a checksum
        }
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = Path(self.directory) / f"teacher-{key}"
        self._settings = settings
        self._attention: dict[str, Any] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what other processes have written since."""
        path = self.folder / "cache.json"
        if path.is_file():
            self._check(path, self._settings)
            self._read_shards()

    def _check(self, path: Path, settings: dict[str, Any]) -> None:
        try:
            there = json.loads(path.read_text("utf-8"))
        except ValueError:
            there = None
        if not isinstance(there, dict) or not isinstance(there.get("attention", {}), dict):
            raise UserError(f"{path}: damaged; delete {self.folder} and it is made again")
        self._attention = there.pop("attention", {})
        for key in settings:
            if there.get(key) != settings[key]:
                raise UserError(
                    f"{path}: another cache: {key} is {there.get(key)!r} there and {settings[key]!r} here; "
                    f"delete {self.folder}"
                )

    def _read_shards(self) -> None:
        for path in sorted(self.folder.glob(SHARDS)):
            if path.name in self.names:
                continue
            try:
                with safe_open(path, "pt") as file:
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
                told, found = tensors.pop("checksum").tolist(), checksum(tensors)
                if told != found:
                    raise ValueError(f"its checksum is {told} there and {found} here")
                lengths, content = tensors.pop("lengths").tolist(), tensors.pop("content").tolist()
                missing = set(self.contents.names()) - set(tensors)
            except (SafetensorError, KeyError, OSError, ValueError) as error:
                raise UserError(f"{path}: damaged ({error}); delete the file and its examples are made again") from None
            if missing:
                raise UserError(f"{path}: holds no {', '.join(sorted(missing))}; delete the file")
            offsets = [0]
            for length in lengths:
                offsets.append(offsets[-1] + length)
            self.names.add(path.name)
            self.places |= {c: (len(self.shards), row) for row, c in enumerate(content)}
            self.shards.append(_Shard(tensors, offsets, lengths))

    def missing(self, hashes: Sequence[int]) -> list[int]:
        """Indices of the examples that are not there yet, each content once."""
        first = {content: i for i, content in reversed(list(enumerate(hashes)))}
        return sorted(i for content, i in first.items() if content not in self.places)

    def fill(
        self,
        dataset: datasets.Dataset,
        teacher: Teacher,
        collator: Collator,
        device: torch.device,
    ) -> int:
        """Run the teacher over the examples that are missing; how many they were.

        `teacher` gives what a plan asks for on inputs under a mask. Shards that are written stay, so a filling that was
        stopped goes on. A second process waits for the first.
        """
        hashes = dataset["content"]
        if not self.missing(hashes):
            return 0
        everything = len(set(hashes))
        with self._writing(), Task("teacher cache", everything, everything - len(self.missing(hashes))) as task:
            self.refresh()
            missing = self.missing(hashes)
            for start in range(0, len(missing), SHARD_EXAMPLES):
                part = missing[start : start + SHARD_EXAMPLES]
                tensors = self._compute(dataset, part, teacher, collator, device, task)
                tensors["content"] = torch.tensor([hashes[i] for i in part])
                tensors["checksum"] = torch.tensor(checksum(tensors))
                write_json(self.folder / "cache.json", self._settings | {"attention": self._attention})
                number = max((int(name[6:11]) for name in self.names), default=-1) + 1
                write_tensors(self.folder / f"shard-{number:05d}.safetensors", tensors)
                self._read_shards()
        return len(missing)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        lock = FileLock(self.folder / "writer.lock", thread_local=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise UserError(f"--cache {self.directory}: cannot be written: {error.strerror}") from None
        try:
            yield
        finally:
            lock.release()

    def _compute(
        self,
        dataset: datasets.Dataset,
        part: list[int],
        teacher: Teacher,
        collator: Collator,
        device: torch.device,
        task: Task,
    ) -> dict[str, Tensor]:
        """The tensors of some examples, one after the other without padding; computed in order of length."""
        found: dict[int, dict[str, Tensor]] = {}
        order = sorted(part, key=lambda i: len(dataset[i]["input_ids"]), reverse=True)
        for start in range(0, len(order), BATCH_EXAMPLES):
            places = order[start : start + BATCH_EXAMPLES]
            batch = collator([dataset[i] for i in places])
            mask = batch["attention_mask"].bool().to(device)
            inputs = {name: batch[name].to(device) for name in ("input_ids", "token_type_ids") if name in batch}
            with torch.autocast(device.type, DTYPES[self.arithmetic], enabled=self.arithmetic != "fp32"):
                captured = teacher(self.contents.capture, inputs, mask)
            for row, i in enumerate(places):
                found[i] = {name: t.cpu() for name, t in self._row(captured, row, int(mask[row].sum())).items()}
            task.advance(len(places))
        joined = {"lengths": torch.tensor([len(dataset[i]["input_ids"]) for i in part])}
        for name in self.contents.names():
            parts = [found[i][name] for i in part]
            tensor = torch.cat(parts) if self.contents.ragged(name) else torch.stack(parts)
            if not bool(tensor.isfinite().all()):
                raise UserError(f"teacher cache: the teacher's {name} is not finite on some of the examples")
            rounded = self.contents.ragged(name) and name != "logits"
            joined[name] = tensor.to(DTYPES[self.arithmetic] if rounded else torch.float32)
        return joined

    def _row(self, captured: Captured, row: int, length: int) -> dict[str, Tensor]:
        tensors = {f"hidden.{k}": captured.hidden[k][row, :length] for k in self.contents.plan.hidden}
        for k in self.contents.plan.attention:
            record = captured.attention[k]
            if record.bias is not None or (record.mask is not None and not _is_plain(record, captured.mask)):
                raise UserError(
                    f"--cache: attention of layer {k} has a position bias or a window, which the cache cannot hold; "
                    "use --cache off"
                )
            self._attention[str(k)] = {"scaling": record.scaling, "causal": record.causal}
            for name in VECTORS:
                tensor = getattr(record, name)[row, :, :length]
                self._attention[str(k)][name] = tensor.shape[0]
                if (k, name) in self.contents.vectors:
                    tensors[f"{name}.{k}"] = tensor.transpose(0, 1).flatten(1)
        for k, pool in self.contents.pooled:
            states, mask = captured.hidden[k][row : row + 1], captured.mask[row : row + 1]
            tensors[f"pooled.{k}.{pool}"] = pool_tokens(states, mask, pool)[0]
        if self.contents.plan.logits:
            assert captured.logits is not None
            tensors["logits"] = captured.logits[row, :length] if self.contents.per_token else captured.logits[row]
        return tensors

    def read(self, content: Sequence[int], mask: Tensor) -> Captured:
        """What the teacher gave away on the examples with these hashes, padded to `mask` `(B, N)`."""
        try:
            places = [self.places[c] for c in content]
        except KeyError:
            raise UserError(f"{self.folder}: an example of this batch is not in the teacher cache") from None
        captured = Captured(mask)
        tokens, device = mask.shape[1], mask.device

        def rows(name: str) -> Tensor:
            return to_device(torch.stack([self.shards[s].tensors[name][r] for s, r in places]), device)

        def ragged(name: str) -> Tensor:
            parts = []
            for s, r in places:
                shard = self.shards[s]
                parts.append(shard.tensors[name][shard.offsets[r] : shard.offsets[r + 1]])
            padded = pad_sequence(parts, batch_first=True)
            # Numbers stay as small as they are kept; signals widen what they compare.
            return _at_tokens(to_device(F.pad(padded, (0, 0, 0, tokens - padded.shape[1])), device), mask)

        captured.hidden = {k: ragged(f"hidden.{k}") for k in self.contents.plan.hidden}
        captured.pooled = {(k, pool): rows(f"pooled.{k}.{pool}") for k, pool in self.contents.pooled}
        for k in self.contents.plan.attention:
            stated = self._attention[str(k)]
            q, key, v = (
                ragged(f"{name}.{k}").unflatten(-1, (stated[name], -1)).transpose(1, 2)
                if (k, name) in self.contents.vectors
                else torch.empty(len(mask), stated[name], 0, 0, device=device)
                for name in VECTORS
            )
            captured.attention[k] = AttentionRecord(q, key, v, stated["scaling"], None, stated["causal"])
        if self.contents.plan.logits:
            captured.logits = (ragged if self.contents.per_token else rows)("logits")
        return captured


def _at_tokens(rows: Tensor, mask: Tensor) -> Tensor:
    """Rows `(B, N, ...)` that stand at the beginning, moved to where `mask` `(B, N)` has its tokens."""
    if mask.device.type == "cpu" and bool(mask[:, 0].all()):
        return rows  # padded on the right, as nearly always; on a GPU looking would have to wait for it
    places = (mask.long().cumsum(1) - 1).clamp(min=0)[..., None].expand_as(rows)
    return rows.gather(1, places).masked_fill(~mask[..., None], 0)


def checksum(tensors: dict[str, Tensor]) -> int:
    """CRC-32 of the bytes of all tensors, in the order of their names."""
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data, found)
    return found


def _is_plain(record: AttentionRecord, mask: Tensor) -> bool:
    """Whether a recorded mask hides padding and, in causal layers, the future, and nothing else."""
    assert record.mask is not None
    n = mask.shape[1]
    plain = mask[:, None, None, :].expand(-1, 1, n, n)
    if record.causal:
        plain = plain & torch.ones(n, n, dtype=torch.bool, device=mask.device).tril()
    rows = mask[:, None, :, None]
    return bool(((record.mask == plain) | ~rows).all())

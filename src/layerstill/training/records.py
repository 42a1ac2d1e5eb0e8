"""Run directories: the student as a plain model folder, and beside it the record of how it came about."""

import errno
import hashlib
import json
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from safetensors import SafetensorError
from transformers import TrainerCallback

from layerstill.atomic import write_json, write_text
from layerstill.data.ood import OodSet
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.heads import head_settings
from layerstill.recipe import Recipe
from layerstill.result import Record, Result
from layerstill.training import processes
from layerstill.training.arguments import Options
from layerstill.training.lock import LOCK_FILE, FolderLock

RUN_FILE = "run.json"
JOB_FILE = "job.json"
"""What a study told the run, written before it begins."""
SOURCE = "source"
"""Key of what the task was read from."""
KEPT = {"tuning", "steps"}
"""What a run finds out and keeps, so that it knows it when it goes on."""
PLACES = {"teacher", "more_teachers", "model", "init_from", "student", "augment_model", "data_checks", SOURCE, *KEPT}
"""Settings that make no run another: a model is what its fingerprint says, under whatever path it was given, and what
was found out follows from the others."""
RUNS = Path("runs")
"""Where runs go that are given no folder."""
DISK_TROUBLE = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM EIO ENOTDIR EISDIR ENOENT EEXIST ENAMETOOLONG ENOLCK".split()
}


class RunFolder:
    """The output folder of one run: made for its settings, refused to any other run, and to a second at a time.

    A context: inside it the folder is locked, and trouble with the disk becomes a UserError. Of several processes the
    first one writes.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]) -> None:
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings))
        self._lock = FolderLock(self.path)

    def __enter__(self) -> "RunFolder":
        opened = False
        try:
            if processes.is_first():
                self._open()
            opened = True
        except OSError as error:
            raise UserError(f"--output {self.path}: cannot be written: {error.strerror}") from None
        finally:
            if not opened:
                self._lock.release()
            if not processes.first_succeeded(opened) and opened:
                raise SystemExit(2)  # the first process says why
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()
        if isinstance(error, SafetensorError) or (isinstance(error, OSError) and error.errno in DISK_TROUBLE):
            raise UserError(
                f"--output {self.path}: cannot be written or read: {error}; what was saved before is intact, and "
                f"once this is fixed the same command resumes from there"
            ) from None
        if error is not None and processes.was_left(error):
            raise UserError("another process of this run has ended; the same command resumes from the last checkpoint")

    def _open(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--output {self.path}: a file, not a folder")
        if self.finished is not None and not self._leavings():
            self._refuse_another_run()
            return
        self._refuse_foreign_files()
        self._refuse_links()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        if (self.path / RUN_FILE).exists():
            self._refuse_another_run()
        if self.finished is not None:
            self._tidy()
        else:
            write_json(self.path / RUN_FILE, self._with_kept(self.settings))

    def _with_kept(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with what the same run has found out before."""
        try:
            there = json.loads((self.path / RUN_FILE).read_text("utf-8"))
        except (OSError, ValueError):
            return settings
        if not isinstance(there, dict) or _different(there, settings) is not None:
            return settings
        return settings | {name: there[name] for name in KEPT if name in there}

    def kept(self, name: str) -> Any:
        """What the run has found out and kept in `run.json`; None if it has not."""
        file = self.path / RUN_FILE
        return json.loads(file.read_text("utf-8")).get(name) if file.is_file() else None

    def keep(self, name: str, value: Any) -> None:
        """Keep something in `run.json`, one of `KEPT`, so that the run knows it when it goes on."""
        if processes.is_first():
            write_json(self.path / RUN_FILE, json.loads((self.path / RUN_FILE).read_text("utf-8")) | {name: value})
        processes.wait_for_all()

    def _refuse_foreign_files(self) -> None:
        there = {p.name for p in self.path.iterdir()} if self.path.is_dir() else set()
        # A run that was killed at once leaves no more than these.
        if there - {LOCK_FILE, f".{RUN_FILE}.part", JOB_FILE, f".{JOB_FILE}.part"} and RUN_FILE not in there:
            raise UserError(f"--output {self.path}: not empty and not a run of layerstill; choose a new folder")

    def _refuse_links(self) -> None:
        # Whoever may write here could otherwise have a run write, with its user's rights, anywhere else.
        if link := next((p for p in self.path.rglob("*") if p.is_symlink()), None):
            raise UserError(
                f"--output {self.path}: {link.relative_to(self.path)} in it is a symbolic link to {link.readlink()}; "
                "a run writes into its own folder only, remove the link or choose a new folder"
            )

    def _refuse_another_run(self) -> None:
        there = self._settings_there()
        trained = [*self.path.glob("*.safetensors"), *self.checkpoints.rglob("*.safetensors")]
        if self.finished is None and not trained:
            return  # it failed before anything was trained, so nothing can be lost
        if (key := _different(there, self.settings)) is not None:
            where, theirs, ours = _where_different(key, there.get(key), self.settings.get(key))
            raise UserError(
                f"--output {self.path} holds another run: {where} is {_brief(theirs)} there and {_brief(ours)} here; "
                "choose a new folder, or delete that one"
            )

    def _settings_there(self) -> dict[str, Any]:
        try:
            there = json.loads((self.path / RUN_FILE).read_text("utf-8"))
        except (OSError, ValueError):
            there = None
        if not isinstance(there, dict) or "recipe" not in there:
            raise UserError(f"--output {self.path}: not empty and not a run of layerstill; choose a new folder")
        return there

    @property
    def finished(self) -> Result | None:
        """The result of a run that was completed here before."""
        record = Record.read(self.path, "move it away and run the same command again, or choose a new folder")
        return None if record is None else Result(record, self.path)

    @property
    def checkpoints(self) -> Path:
        """Where unfinished work is kept; removed when the run is finished."""
        return self.path / "checkpoints"

    @property
    def teacher_cache(self) -> Path:
        """Where this run keeps what its teacher said, if it keeps it to itself; removed with the checkpoints."""
        return self.path / "teacher-cache"

    @property
    def tuning(self) -> Path:
        """Where short trainings of candidates are kept; removed with the checkpoints."""
        return self.path / "tuning"

    @property
    def corpus(self) -> Path:
        """Where running text is kept as blocks of tokens, if no cache is shared; removed with the checkpoints."""
        return self.path / "corpus"

    def finish(self, record: Record) -> Result:
        """Write `result.json`, which makes the run a finished one, and remove the checkpoints."""
        record.write(self.path)
        self._tidy()
        return Result(record, self.path)

    def _leavings(self) -> list[Path]:
        """What only an unfinished run needs: checkpoints, cache, trials, the lock, files that were being written."""
        unfinished = (
            self.checkpoints,
            self.teacher_cache,
            self.tuning,
            self.corpus,
            self.path / LOCK_FILE,
            *self.path.glob(".*.part"),
        )
        return [p for p in unfinished if p.exists()]

    def _tidy(self) -> None:
        for folder in (self.checkpoints, self.teacher_cache, self.tuning, self.corpus):
            shutil.rmtree(folder, ignore_errors=True)
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)

    def metrics_log(self, stage: int, from_step: int) -> "MetricsLog":
        """A callback that appends to `metrics.jsonl`, dropping what a killed run wrote after its last checkpoint."""
        path = self.path / "metrics.jsonl"
        if processes.is_first():
            lines = path.read_text("utf-8", "replace").split("\n") if path.is_file() else []
            write_text(path, "".join(f"{line}\n" for line in lines if _position(line) <= (stage, from_step)))
        return MetricsLog(path, stage)


def _position(line: str) -> tuple[float, float]:
    """Stage and step of a line of `metrics.jsonl`; a line that was cut off counts as later than all."""
    try:
        entry = json.loads(line)
        return entry["stage"], entry["step"]
    except (ValueError, LookupError, TypeError):
        return float("inf"), 0


def _different(there: dict[str, Any], here: dict[str, Any]) -> str | None:
    """The first setting that makes two runs different ones; None if none does."""
    return next((k for k in [*here, *there] if k not in PLACES and there.get(k) != here.get(k)), None)


def _where_different(path: str, there: Any, here: Any) -> tuple[str, Any, Any]:
    """The first place, as a dotted path, where two settings differ, and what stands there."""
    if isinstance(there, dict) and isinstance(here, dict):
        if set(there) != set(here):
            return path, list(there), list(here)
        steps: Any = here
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        steps = range(len(here))
    else:
        return path, there, here
    step = next(step for step in steps if there[step] != here[step])
    return _where_different(f"{path}.{step}", there[step], here[step])


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


class MetricsLog(TrainerCallback):
    """Appends one JSON line for every log of the trainer."""

    def __init__(self, path: Path, stage: int) -> None:
        self.path = path
        self.stage = stage

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        entry: dict[str, Any] = {"stage": self.stage, "step": state.global_step, "epoch": round(state.epoch or 0, 4)}
        groups = {
            "objective/": "objectives",
            "teacher spread/": "teacher_spread",
            "eval_": "dev",
            "dev objective/": "dev_objectives",
            "train objective/": "train_objectives",
        }
        for name, value in logs.items():
            for prefix, group in groups.items():
                if name.startswith(prefix):
                    entry.setdefault(group, {})[name.removeprefix(prefix)] = value
                    break
            else:
                entry[name] = value
        for noise in ("runtime", "samples_per_second", "steps_per_second"):
            entry.get("dev", {}).pop(noise, None)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def settings_of(task: Task, recipe: Recipe, options: Options, ood: Sequence[OodSet]) -> dict[str, Any]:
    """What `run.json` keeps of every run; with other settings it is another run."""
    head = head_settings(task.head)
    return {
        "task": task.name,
        **({} if head is None else {"head": head}),
        **({"regime": task.regime} if task.regime else {}),
        **({"ood": {ood_set.name: ood_set.fingerprint for ood_set in ood}} if ood else {}),
        "data_fingerprint": task_fingerprint(task),
        **({SOURCE: task.source.model_dump(mode="json")} if task.source else {}),
        # Data under other names are other data, which their fingerprint does not show.
        **({"labels": list(task.labels)} if task.source and task.source.label_map else {}),
        "recipe": recipe.model_dump(mode="json", exclude={"name"}),
        "seed": options.seed,
        "max_length": options.max_length,
        "max_steps": options.max_steps,
        "precision": options.precision,
        **({"compile": True} if options.compile else {}),
        "cache": options.cache.where if options.cache.where in {"auto", "off"} else "shared",
    }


def folder_for(output: str | Path | None, recipe: Recipe, settings: dict[str, Any]) -> Path:
    """`output`, or without one `runs/RECIPE-DIGEST`: the same for the same settings, so that a run is found again."""
    if output is not None:
        return Path(output)
    told = {key: value for key, value in settings.items() if key not in PLACES}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    return RUNS / f"{recipe.name or 'recipe'}-{digest}"


def task_fingerprint(task: Task) -> str:
    """Twelve hexadecimal digits of every text, label and weight."""
    digest = hashlib.sha256()
    for name, split in sorted(task.splits.items()):
        weights = [split.weights] if split.weights else []
        digest.update(json.dumps([name, split.texts, split.labels, *weights], ensure_ascii=False).encode())
    return digest.hexdigest()[:12]


def environment() -> dict[str, str]:
    """Versions that a result depends on."""
    packages = ("layerstill", "torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy")
    return {"python": platform.python_version(), "machine": platform.machine()} | {p: version(p) for p in packages}


def peak_memory_mb() -> float:
    """Largest resident memory of this process, or of the GPU if one is used, in MB."""
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    if sys.platform == "win32":
        return round(psutil.Process().memory_info().peak_wset / 2**20, 1)
    import resource  # which Windows does not have; psutil knows the peak on Windows only

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(used / (2**20 if sys.platform == "darwin" else 2**10), 1)  # bytes on macOS, kilobytes elsewhere

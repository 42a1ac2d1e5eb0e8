"""The folder of a study: one process at a time, what it holds, and its records."""

import json
import statistics
from pathlib import Path
from types import TracebackType
from typing import Any

from layerstill.atomic import write_json, write_text
from layerstill.errors import UserError
from layerstill.result import Record
from layerstill.studies.file import Study
from layerstill.training.lock import FolderLock

STUDY_FILE, RECORDS_FILE, TUNING_FILE, DURATIONS_FILE = "study.json", "records.jsonl", "tuning.json", "durations.jsonl"


class StudyFolder:
    """`--output` of a study; a context that locks it, refused to another study and to a second process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FolderLock(path)
        self._results: dict[str, Record] = {}

    def refuse_others(self, study: Study) -> None:
        """UserError if the folder holds anything but this study."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--output {self.path}: a file, not a folder")
        there = self.path / STUDY_FILE
        if there.is_file():
            try:
                name = json.loads(there.read_text("utf-8"))["name"]
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{there}: damaged; move it away and run the same command again") from None
            if name != study.name:
                raise UserError(
                    f"--output {self.path} holds study {name!r}, this is {study.name!r}; choose a new folder"
                )
        elif self.path.is_dir() and {p.name for p in self.path.iterdir()} - {"run.lock", f".{STUDY_FILE}.part"}:
            raise UserError(f"--output {self.path}: not empty and not a study; choose a new folder")

    def open(self, study: Study, quick: bool) -> "StudyFolder":
        """Lock the folder and say in `study.json` what is run here."""
        self.refuse_others(study)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        write_json(self.path / STUDY_FILE, {"name": study.name, "quick": quick, "study": study.model_dump(mode="json")})
        for name in ("failures", "logs"):
            (self.path / name).mkdir(exist_ok=True)
        return self

    def __enter__(self) -> "StudyFolder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()

    def result(self, folder: str) -> Record | None:
        """The record of a finished run, None before."""
        if folder not in self._results:
            record = Record.read(Path(folder), f"delete {folder} and the same command makes it again")
            if record is None:
                return None
            self._results[folder] = record
        return self._results[folder]

    def failure(self, key: str) -> str | None:
        """Why a run failed the last time; None if it did not."""
        try:
            return str(json.loads((self.path / "failures" / f"{key}.json").read_text("utf-8"))["error"])
        except FileNotFoundError:
            return None

    def set_failure(self, key: str, error: str | None) -> None:
        """Keep why a run failed, or forget it."""
        path = self.path / "failures" / f"{key}.json"
        if error is None:
            path.unlink(missing_ok=True)
        else:
            write_json(path, {"error": error})

    def add_duration(self, kind: str, key: str, seconds: float) -> None:
        """Keep how long a job took, for estimates."""
        with (self.path / DURATIONS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "hash": key, "seconds": round(seconds, 2)}) + "\n")

    def typical_seconds(self) -> dict[str, float]:
        """Median duration of a finished job of each kind."""
        found: dict[str, list[float]] = {}
        path = self.path / DURATIONS_FILE
        for line in path.read_text("utf-8", "replace").split("\n") if path.is_file() else ():
            try:
                entry = json.loads(line)
                found.setdefault(entry["kind"], []).append(float(entry["seconds"]))
            except (ValueError, KeyError, TypeError):
                continue  # a line that a kill cut off
        return {kind: statistics.median(seconds) for kind, seconds in found.items()}

    def write_records(self, records: list[dict[str, Any]]) -> None:
        """Replace `records.jsonl`."""
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        write_text(self.path / RECORDS_FILE, "".join(f"{line}\n" for line in lines))

    def write_tuning(self, groups: list[dict[str, Any]]) -> None:
        """Replace `tuning.json`."""
        write_json(self.path / TUNING_FILE, groups)

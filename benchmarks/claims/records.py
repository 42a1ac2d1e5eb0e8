"""What of a study's runs is kept in the repository: scores, what was right of each dev example, cost, choices."""

import hashlib
import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerstill.acts.diagnose import FILE as DIAGNOSTICS
from layerstill.evaluation.comparison import Scores
from layerstill.evaluation.predictions import load_predictions
from layerstill.reporting.runs import RunRecord, read_runs

RESULTS = Path(__file__).parents[1] / "results"


def kept(run: RunRecord) -> dict[str, Any]:
    """One run in a line."""
    predictions = load_predictions(run.folder) if run.folder else None
    if predictions is None:
        raise SystemExit(f"{run.name}: no predictions")
    said = predictions.logits.argmax(-1)
    if run.metric != "accuracy" or abs((said == predictions.labels).mean() - run.score) > 1e-6:
        raise SystemExit(f"{run.name}: its score is no accuracy, or not that of its predictions")
    train = run.result["train"]
    assert run.folder is not None
    return {
        "at": run.coordinates,
        "score": run.score,
        "teacher": run.result["teacher_metrics"].get(run.metric),
        "ood": {name: found["metrics"][run.metric] for name, found in (run.result["ood"] or {}).items()},
        "one_class": len(np.unique(said)) == 1,
        "majority": float(np.bincount(predictions.labels).max() / len(predictions.labels)),
        "examples": len(said),
        "dev": hashlib.sha256(predictions.ids.tobytes()).hexdigest()[:12],
        "right": np.packbits(said == predictions.labels).tobytes().hex(),
        "steps": train["steps"],
        "seconds": train["seconds"],
        "teacher_share": train["teacher_share"],
        **_looked_into(run.folder),
    }


def _looked_into(folder: Path) -> dict[str, Any]:
    """What `diagnose` and evaluations of the objectives found, if they were asked for."""
    found: dict[str, Any] = {}
    if (folder / DIAGNOSTICS).is_file():
        diagnostics = json.loads((folder / DIAGNOSTICS).read_text("utf-8"))
        if gap := diagnostics.get("gap"):
            found["gap"] = gap["accuracy"]
        if noise := diagnostics.get("weight_noise"):
            means = {split: noise[split]["mean"] for split in ("train", "dev")}
            found["noise"] = {"sigmas": noise["sigmas"], **means}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    seen = [line for line in lines if "dev_objectives" in line]
    if seen:
        found["objectives"] = [
            {
                "stage": line["stage"],
                "epoch": line["epoch"],
                "train": line["train_objectives"],
                "dev": line["dev_objectives"],
            }
            for line in seen
        ]
    return found


def keep(folder: Path) -> Path:
    """Write the records of a finished study; SystemExit if a run is missing."""
    study = json.loads((folder / "study.json").read_text("utf-8"))["study"]
    runs = read_runs(folder)
    if unfinished := [run.name for run in runs if run.status != "finished"]:
        raise SystemExit(f"{folder}: {len(unfinished)} runs are not finished, such as {unfinished[0]}")
    lines = ",\n".join(json.dumps(kept(run)) for run in runs)
    tuning = folder / "tuning.json"
    chosen = json.loads(tuning.read_text("utf-8")) if tuning.is_file() else []
    path = RESULTS / f"study_{study['name'].replace(' ', '_')}.json"
    head = f'{{"study": {json.dumps(study)},\n"tuning": {json.dumps(chosen)},\n"runs": [\n{lines}\n]}}\n'
    path.write_text(head, "utf-8")
    return path


@dataclass
class Records:
    """The kept records of one study."""

    study: dict[str, Any]
    tuning: list[dict[str, Any]]
    runs: list[dict[str, Any]]

    @classmethod
    def read(cls, name: str) -> "Records":
        """The records of the study called `name`."""
        return cls(**json.loads((RESULTS / f"study_{name}.json").read_text("utf-8")))

    @property
    def tasks(self) -> list[str]:
        """In the study's order."""
        return list(dict.fromkeys(run["at"]["task"] for run in self.runs))

    def values(self, axis: str) -> list[str]:
        """Coordinates on an axis, in the study's order."""
        return list(dict.fromkeys(run["at"][axis] for run in self.runs))

    def where(self, **at: Any) -> Iterator[dict[str, Any]]:
        """The runs at these coordinates."""
        return (run for run in self.runs if all(run["at"].get(axis) == value for axis, value in at.items()))

    def scores(self, field: str = "score", **at: Any) -> dict[str, dict[int, float]]:
        """Scores by task and seed."""
        found: dict[str, dict[int, float]] = {}
        for run in self.where(**at):
            found.setdefault(run["at"]["task"], {})[run["at"]["seed"]] = run[field]
        return found

    def ood(self, task: str, name: str, **at: Any) -> dict[int, float]:
        """Scores on an out-of-domain set by seed."""
        return {run["at"]["seed"]: run["ood"][name] for run in self.where(task=task, **at)}

    def right(self, **at: Any) -> dict[str, np.ndarray]:
        """What was right, `(S, N)` by seed and example, of each task; all runs of a task have the same dev examples."""
        found: dict[str, dict[int, np.ndarray]] = {}
        for run in self.where(**at):
            assert run["dev"] == next(self.where(task=run["at"]["task"]))["dev"]
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(run["right"]), np.uint8))[: run["examples"]]
            found.setdefault(run["at"]["task"], {})[run["at"]["seed"]] = bits.astype(float)
        return {task: np.stack([by_seed[s] for s in sorted(by_seed)]) for task, by_seed in found.items()}

    def best_on_slice(self, task: str, arms: list[str]) -> str:
        """The arm whose tuned learning rate scored best on the slice of train; of equals the first."""
        scores = {
            group["group"]["recipe"]: max(
                c["score"] for c in group["rungs"][-1]["candidates"] if c["score"] is not None
            )
            for group in self.tuning
            if group["group"]["task"] == task and group["group"]["recipe"] in arms
        }
        return max(scores, key=lambda arm: scores[arm])


def spread(by_seed: Mapping[int, float] | list[float]) -> str:
    """Mean and standard deviation in points."""
    values = [100 * v for v in (by_seed.values() if isinstance(by_seed, Mapping) else by_seed)]
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def minus(a: Scores, b: Scores) -> dict[str, dict[int, float]]:
    """Differences of paired scores."""
    return {task: {seed: a[task][seed] - b[task][seed] for seed in a[task]} for task in a}

"""What a study needs done: each run as a job with a hash of everything it depends on, and the teacher it waits for."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from layerstill.data.glue import GLUE
from layerstill.data.supplementary import read_supplementary
from layerstill.data.tasks import Task
from layerstill.demo_model import find_base_model
from layerstill.errors import UserError
from layerstill.families import depth_of
from layerstill.heads import HEADS, Head
from layerstill.recipe import Recipe
from layerstill.studies.expand import Planned, expand, find_recipe, tuned
from layerstill.studies.file import Arm, Settings, Study, TaskSource
from layerstill.studies.job import Job, divided, out_of_domain
from layerstill.studies.tasks import read_source, under_regime
from layerstill.training.arguments import arithmetic_of
from layerstill.training.length import epochs_of
from layerstill.training.misfits import refuse_misfits
from layerstill.training.models import fingerprint, load_config, require_head
from layerstill.training.plan import make_plan
from layerstill.training.records import task_fingerprint

FOLDERS = {"teacher": "teachers", "tuning": "tuning", "run": "runs"}
PLACES = {
    *("hash", "label", "folder", "source", "model", "teacher", "own_teacher", "ood_data"),
    *("cache", "cache_budget", "cache_runs", "supplementary", "supplementary_columns"),
}
"""What a job says that its result does not depend on, or that a fingerprint stands for."""


@dataclass
class StudyPlan:
    """A study with its data and base models found.

    Args:
        study: the study.
        file_folder: where its file lies; recipes and own data are found from there.
        output: the study's folder.
        data: folder in the GLUE layout.
        ood_data: folder of the out-of-domain sets.
        cache_budget: largest teacher cache in GB.
        teachers: where teachers are kept, if not in `output`; studies share them.
    """

    study: Study
    file_folder: Path
    output: Path
    data: Path | None = None
    ood_data: Path | None = None
    cache_budget: float = 4.0
    teachers: Path | None = None
    _models: dict[tuple[str, Head | None], tuple[str, str, PretrainedConfig]] = field(default_factory=dict, repr=False)
    _jobs: dict[int, tuple[Planned, Job]] = field(default_factory=dict, repr=False)
    _data: dict[str, tuple[str, Task]] = field(default_factory=dict, repr=False)
    _sizes: dict[str, dict[str, int]] = field(default_factory=dict, repr=False)
    _ood: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    _supplementary: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict, repr=False)

    @cached_property
    def runs(self) -> list[Planned]:
        """Every run, in the file's order."""
        return expand(self.study, self.file_folder)

    @cached_property
    def _alike(self) -> Counter[str]:
        """How many runs ask their teacher for the same."""
        return Counter(map(self._kind, self.runs))

    @staticmethod
    def _kind(run: Planned) -> str:
        s = run.settings
        return json.dumps([s.task, s.regime, s.recipe if isinstance(s.recipe, str) else s.recipe.name])

    def stage_steps(self, run: Planned) -> list[int]:
        """Optimiser steps of each stage of a run with `total_steps`; empty for a run without."""
        s = run.settings
        if s.total_steps is None:
            return []
        sizes = self._sizes_of(self.run_job(run))
        return divided(s.total_steps, [epochs_of(stage, sizes[stage.data]) for stage in run.recipe.stages])

    def _sizes_of(self, job: Job) -> dict[str, int]:
        """How many examples and supplementary texts a job trains on, as `with_steps` takes them."""
        name, regime, seed = job["source"]["name"], job["regime"], job["regime_seed"]
        key = json.dumps([name, regime, seed, job.get("supplementary"), job.get("supplementary_columns")])
        if key not in self._sizes:
            self._sizes[key] = {"task": len(under_regime(self._task(name)[1], regime, seed).splits["train"])}
            if "supplementary" in job:
                texts = read_supplementary(job["supplementary"], tuple(job["supplementary_columns"]))
                self._sizes[key]["supplementary"] = len(texts.texts)
        return self._sizes[key]

    def memory_mb(self) -> float:
        """Megabytes of the largest job: weights, gradients, Adam's moments, activations, as `layerstill plan` says."""
        sizes: dict[tuple[Any, ...], float] = {}
        for tried in (candidate for run in self.runs for candidate in self._tried(run)):
            s = tried.settings
            alike = tried.recipe.limited(None, None, 1.0).hash  # a rate takes no memory
            key = (s.model, s.task, s.init_from, s.student_layers, s.max_length, s.precision, alike)
            if key not in sizes:
                sizes[key] = self._memory_mb(tried)
        return max(sizes.values())

    def _tried(self, run: Planned) -> list[Planned]:
        """The run with everything that tuning may make of it and that could change its size."""
        tune = self.study.tune
        if tune is None or set(tune.fields) == {"learning_rate"}:
            return [run]
        return [tuned(self.study, self.file_folder, run, values) for values in tune.candidates()]

    def _memory_mb(self, run: Planned) -> float:
        s, t = run.settings, run.teacher
        head, own, start = self._task(s.task)[1].head, self._own_teacher(s), self._start(s)
        config = self._model(own or s.model, head)[2]
        source = config if start is None else start[2]
        arithmetic = arithmetic_of(s.precision)
        models = config, source, s.student_layers, head, s.seed, s.max_length
        found = make_plan(run.recipe, *models, arithmetic=arithmetic).memory_mb
        if own is not None:
            return found
        recipe = find_recipe(t.recipe, t.set, self.file_folder, "teacher").limited(None, t.batch_size, None)
        whole = config, config, depth_of(config), head, t.seed, s.max_length
        return max(found, make_plan(recipe, *whole, arithmetic=arithmetic).memory_mb)

    def check(self) -> None:
        """UserError for a run that could not be started, as far as that can be known ahead."""
        seen = set()
        for run in self.runs:
            s = run.settings
            depth = (s.model, s.task, run.recipe.hash, s.student_layers, s.init_from, self._texts_of(s))
            data = (s.task, json.dumps(s.regime))
            if depth not in seen:
                self._refuse(run)
            if data not in seen:
                job = self.run_job(run)  # reads the out-of-domain sets, too
                under_regime(self._task(s.task)[1], job["regime"], job["regime_seed"])
            seen |= {depth, data}

    def _refuse(self, run: Planned) -> None:
        s = run.settings
        where = "run " + ", ".join(f"{axis} {value}" for axis, value in run.coordinates.items())
        self._refuse_texts(run, f"study {self.study.name}, {where}")
        _, task = self._task(s.task)
        own = self._own_teacher(s)
        path, _, config = self._model(own or s.model, task.head)
        start = self._start(s)
        source = config if start is None else start[2]
        try:
            if own is not None:
                require_head(path, config, task.head)
            refuse_misfits(run.recipe, config, source, s.student_layers, s.seed, task.head)
        except UserError as error:
            raise UserError(f"study {self.study.name}, {where}: {error}") from None

    def _refuse_texts(self, run: Planned, where: str) -> None:
        source = self._texts_of(run.settings)
        if run.recipe.supplementary_stages and source is None:
            raise UserError(
                f"{where}: recipe {run.recipe.name} trains on supplementary texts; say which beside it, "
                "{name: ..., recipe: ..., supplementary: mnli}, or set stages.*.data to task"
            )
        if source is not None and not run.recipe.supplementary_stages:
            raise UserError(
                f"{where}: supplementary {source}, but no stage of recipe {run.recipe.name} says data: supplementary"
            )
        if source is not None:
            self._texts(run.settings)

    def _texts_of(self, s: Settings) -> str | None:
        """The texts of a run's supplementary stages, as `--supplementary` names them."""
        source = s.recipe.supplementary if isinstance(s.recipe, Arm) else None
        if source is None:
            return None
        if source in GLUE:
            if self.data is None:
                raise UserError(f"study {self.study.name}: supplementary {source}: give --data, the GLUE folder")
            return f"{source}={self.data}"
        beside = self.file_folder / source
        return str(beside if beside.exists() or self.data is None else self.data / source)

    def _texts(self, s: Settings) -> dict[str, Any]:
        """What a job says of them: where they are, their columns, and their fingerprint; nothing without them."""
        source = self._texts_of(s)
        if source is None:
            return {}
        assert isinstance(s.recipe, Arm)
        columns = tuple(s.recipe.supplementary_columns)
        if (source, columns) not in self._supplementary:
            self._supplementary[source, columns] = read_supplementary(source, columns).fingerprint
        found = {"supplementary": source, "supplementary_columns": [*columns]}
        return found | {"supplementary_texts": self._supplementary[source, columns]}

    def teacher_job(self, run: Planned) -> Job | None:
        """The fine-tuning that a run waits for; None if its task has a teacher already."""
        s, t = run.settings, run.teacher
        if self._own_teacher(s) is not None:
            return None
        model, model_fingerprint, _ = self._model(s.model)
        recipe = find_recipe(t.recipe, t.set, self.file_folder, f"study {self.study.name}, teacher")
        if recipe.needs_teacher:
            raise UserError(f"study {self.study.name}: teacher.recipe {t.recipe} needs a teacher itself; use finetune")
        job = self._common(run, recipe.limited(t.epochs, t.batch_size, t.learning_rate), s.regime, t.seed)
        if t.regime == "full":
            job |= {"regime": {}, "regime_seed": 0}
        job |= {
            "kind": "teacher",
            "label": f"teacher {s.task}",
            "model": model,
            "max_steps": t.max_steps,
            "total_steps": None,
        }
        return self._placed(job, {"model": model_fingerprint})

    def run_job(self, run: Planned) -> Job:
        """The distillation itself."""
        if id(run) not in self._jobs:
            label = " / ".join(map(str, run.coordinates.values()))
            self._jobs[id(run)] = (run, self._student(run, {"kind": "run", "label": label}))
        return self._jobs[id(run)][1]

    def tuning_job(self, run: Planned, values: dict[str, Any], seed: int, share: float) -> Job:
        """The distillation of a candidate on what is left of train, scored on the slice that was held out of it."""
        assert self.study.tune is not None
        candidate = tuned(self.study, self.file_folder, run, values)
        candidate = replace(candidate, settings=candidate.settings.model_copy(update={"seed": seed}))
        said = [*map(str, run.group(self.study.tune.per)), *(f"{k} {v}" for k, v in values.items()), f"{share:.0%}"]
        job = {"kind": "tuning", "label": " / ".join(said), "held_out": self.study.tune.held_out}
        job |= {"share": share, "ood": [], "ood_examples": None}
        return self._student(candidate, job)

    def _student(self, run: Planned, more: dict[str, Any]) -> Job:
        s = run.settings
        teacher = self.teacher_job(run)
        path, identity = (
            (teacher["folder"], teacher["hash"]) if teacher else self._model(self._own_teacher(s) or "")[:2]
        )
        start = self._start(s)
        source = self.study.tasks.get(s.task, TaskSource())
        job = self._common(run, run.recipe, s.regime, s.seed)
        job |= {
            "teacher": path,
            "own_teacher": teacher is not None,
            "init_from": start and start[0],
            "student_layers": s.student_layers,
            "max_steps": s.max_steps,
            "total_steps": s.total_steps,
            "ood": source.ood,
            "ood_examples": source.ood_examples,
            "ood_data": None if self.ood_data is None else str(self.ood_data),
            "cache": str(self.output / "cache" / identity) if run.recipe.needs_teacher else "off",
            "cache_budget": self.cache_budget,
            "cache_runs": self._alike[self._kind(run)],
        }
        job |= more
        stand_ins: dict[str, Any] = {"teacher": identity, "init_from": start and start[1]}
        job |= self._texts(s)
        if job["ood"]:
            stand_ins["ood"] = self._ood_sets(s.task, job)
        return self._placed(job, stand_ins)

    def _common(self, run: Planned, recipe: Recipe, regime: dict[str, Any], seed: int) -> Job:
        s = run.settings
        # A regime with `seed: run` is another one for every seed, and so is the teacher that sees it.
        regime_seed = s.seed if regime.get("seed") == "run" else 0
        return {
            "source": self._source(s.task),
            "data": self._task(s.task)[0],
            "regime": regime,
            "regime_seed": regime_seed,
            "held_out": None,
            "recipe": recipe.to_data(),
            "share": 1,
            "seed": seed,
            "max_length": s.max_length,
            "precision": s.precision,
        }

    def _placed(self, job: Job, stand_ins: dict[str, Any]) -> Job:
        """The job with its hash and its folder; `stand_ins` are fingerprints in place of paths."""
        recipe = Recipe.from_data(job["recipe"], "recipe")
        parts = {key: value for key, value in job.items() if key not in PLACES} | stand_ins
        parts |= {"recipe": recipe.hash, "task": job["source"]["kind"]}
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
        folder = self.output / FOLDERS[job["kind"]]
        if job["kind"] == "teacher" and self.teachers is not None:
            folder = self.teachers
        return job | {"hash": digest, "folder": str(folder / digest)}

    def _source(self, name: str) -> dict[str, Any]:
        source = self.study.tasks.get(name, TaskSource())
        kind = source.kind or name
        data = None if self.data is None else str(self.data)
        if source.data is not None or kind in HEADS:
            data = None if source.data is None else str(self.file_folder / source.data)
        return {
            "name": name,
            "kind": kind,
            "data": data,
            "dev": None if source.dev is None else str(self.file_folder / source.dev),
            "text_columns": source.text_columns,
            "label_column": source.label_column,
            # Only where there is one, so that studies from before keep their runs.
            **({} if source.weight_column is None else {"weight_column": source.weight_column}),
            "train_examples": source.train_examples,
            "dev_examples": source.dev_examples,
        }

    def _task(self, name: str) -> tuple[str, Task]:
        if name not in self._data:
            task = read_source(self._source(name))
            self._data[name] = (task_fingerprint(task), task)
        return self._data[name]

    def _ood_sets(self, name: str, job: Job) -> dict[str, str]:
        """Fingerprints of a task's out-of-domain sets, sampled."""
        if name not in self._ood:
            sets = out_of_domain(job, self._task(name)[1])["ood"]
            self._ood[name] = {ood_set.name: ood_set.fingerprint for ood_set in sets}
        return self._ood[name]

    def metric(self, run: Planned) -> str:
        """The metric that chooses among candidates: the task's first."""
        return self.metrics(run.settings.task)[0]

    def metrics(self, task: str) -> tuple[str, ...]:
        """The metrics of a task, by the name that the study has for it."""
        return tuple(self._task(task)[1].metrics)

    def dev_examples(self, task: str) -> int:
        """How many examples a task's students are scored on."""
        return len(self._task(task)[1].splits["dev"])

    def _own_teacher(self, s: Settings) -> str | None:
        return self.study.tasks.get(s.task, TaskSource()).teacher

    def _start(self, s: Settings) -> tuple[str, str, PretrainedConfig] | None:
        """The model that students are cut from; None for their teacher."""
        return None if s.init_from == "teacher" else self._model(s.model if s.init_from == "model" else s.init_from)

    def _model(self, name: str, head: Head | None = None) -> tuple[str, str, PretrainedConfig]:
        """Path, fingerprint and configuration of a model; a folder is looked for beside the study file first.

        With `head` the model must be one that can have it.
        """
        if (name, head) not in self._models:
            beside = self.file_folder / name
            path = find_base_model() if name == "demo" else str(beside) if name and beside.is_dir() else name
            config = load_config(path, head)
            self._models[name, head] = (path, fingerprint(path, config), config)
        return self._models[name, head]

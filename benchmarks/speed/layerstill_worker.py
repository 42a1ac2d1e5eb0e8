"""One timed training with layerstill's own trainer, run by `compare.py`. Prints one JSON line.

Arms: `live` (a teacher in every step), `cached` (its tensors from disk), `alone` (the student by itself), `alone
frozen` (the same, its embeddings as they are), `slow` (a live teacher, no batches by length).
Two epochs over the same examples; the second is timed, so that every batch is timed once.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import datasets
import torch
from pairs import device, peak_mb, wait
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from layerstill.data.encode import Collator, content_hashes
from layerstill.data.order import LengthBuckets
from layerstill.heads import Classes
from layerstill.recipe import Recipe
from layerstill.training.accounting import matmul_peak
from layerstill.training.arguments import Options, arithmetic_of, dtype_of, training_arguments
from layerstill.training.module import DistillationModule, bind_objectives
from layerstill.training.teacher_cache import Contents, TeacherCache
from layerstill.training.trainer import DistillationTrainer

KD = {
    "task": {"signal": "labels"},
    "soft targets": {"signal": "logits", "distance": {"kl": {"temperature": 2}}},
}
RECIPES = {
    "hidden+attention": KD
    | {
        "hidden": {"signal": "hidden_states", "mapping": "uniform", "distance": "mse"},
        "attention": {"signal": "attention", "mapping": "uniform", "distance": "mse"},
    },
    "rail": KD
    | {
        "random layers": {
            "signal": {"hidden_states": {"pool": "mean"}},
            "mapping": {"random": {"redraw": "step", "final_layer": "excluded"}},
            "alignment": {"linear": {"sides": "both", "width": 128}},
            "distance": "normalized_squared",
        }
    },
    "logits": KD,
    "last layer": KD
    | {
        "hidden": {"signal": "hidden_states", "mapping": "last", "distance": "mse"},
        "attention": {"signal": "attention", "mapping": "last", "distance": "mse"},
    },
}


class Clock(TrainerCallback):
    """Notes time and operations at the end of every `steps` steps."""

    def __init__(self, module: DistillationModule, steps: int) -> None:
        self.module = module
        self.steps = steps
        self.ends: list[tuple[float, float]] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step % self.steps == 0:
            wait()
            self.ends.append((time.perf_counter(), self.module.flops))


def main() -> None:
    job = json.loads(sys.argv[1])
    torch.manual_seed(job["seed"])
    rows = json.loads(Path(job["rows"]).read_text("utf-8"))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(job["seed"])).tolist()
    rows = [rows[i] for i in order[: job["steps"] * job["batch_size"]]]
    data = datasets.Dataset.from_list(
        [
            {"input_ids": r["input_ids"], "token_type_ids": r["token_type_ids"], "labels": r["label"], "id": i}
            | {"length": len(r["input_ids"])}
            for i, r in enumerate(rows)
        ]
    )
    data = data.add_column("content", content_hashes(data.to_dict()))
    alone = job["arm"].startswith("alone")
    objectives = {"task": {"signal": "labels"}} if alone else RECIPES[job["workload"]]
    stage = Recipe.from_data(
        {"stages": [{"epochs": 2, "learning_rate": 1e-4, "batch_size": job["batch_size"], "objectives": objectives}]}
    ).stages[0]
    student = AutoModelForSequenceClassification.from_pretrained(job["student"])
    dtype = dtype_of("auto")
    teacher = None if alone else AutoModelForSequenceClassification.from_pretrained(job["teacher"], dtype=dtype)
    if job["arm"] == "alone frozen":
        student.base_model.embeddings.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(job["teacher"])
    module = DistillationModule(student, teacher, stage, job["seed"], Classes())
    clock = Clock(module, job["steps"])
    filled = 0.0
    with tempfile.TemporaryDirectory() as folder:
        if job["arm"] == "cached":
            arithmetic = arithmetic_of("auto")
            bound = bind_objectives(stage, student.config, teacher.config, Classes(), 0)
            cache = TeacherCache(Path(job["cache"]), "benchmark", Contents.of(bound), arithmetic)
            start = time.perf_counter()
            where = torch.device(device())
            cache.fill(data, module.to(where).source.ask, Collator(tokenizer, Classes()), where)
            filled = time.perf_counter() - start
            module.source.cache = cache
            module.flops = 0.0  # filling is not in the seconds either
        if job["arm"] == "slow":
            LengthBuckets.__init__.__defaults__ = (1,)  # stretches of one batch: no neighbours of similar length
        trainer = DistillationTrainer(
            module,
            training_arguments(stage, Path(folder), Options(progress=False, seed=job["seed"]), "accuracy", len(data)),
            train_dataset=data,
            data_collator=Collator(tokenizer, Classes()),
            callbacks=[clock],
        )
        trainer.args.save_strategy = "no"
        trainer.train()
    (begun, before), (ended, after) = clock.ends
    seconds = ended - begun
    flops = (after - before) / len(rows)  # of an example
    best = matmul_peak(trainer.args.device, dtype)
    figures = {
        "examples_per_second": len(rows) / seconds,
        "seconds": seconds,
        "peak_mb": peak_mb(),
        "fill_seconds": filled,
    }
    figures |= {"gflop_per_example": flops / 1e9, "matmul_peak_gflops": best / 1e9, "floor": best / flops}
    print(json.dumps(figures | {"share_of_peak": flops * len(rows) / seconds / best}))


if __name__ == "__main__":
    main()

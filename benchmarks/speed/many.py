"""Many small trainings on one device at the same time: optimiser steps a second of all of them together.

    python benchmarks/speed/many.py --record FILE [--workers 1 2 4 8 12] [--study] [--quick]

A worker is a process that trains MiniLM's shape, 6 layers to 3 with random weights, by soft targets and labels on
random tokens, batch 32, with layerstill's trainer, as a run of a study does. Workers start together when all are warm;
counted is from the first that starts to the last that ends. `--study` measures a real study instead, from its first
process to its table: imports, data, a teacher, every run's evaluation and record. The record is written after every
number of workers.

Bar: 600 steps a second together on one H100, at any number of workers. `--quick` takes a tiny model and few steps.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from layerstill.atomic import write_json

PATIENCE = 300.0
"""Seconds that a worker waits for the others."""
WANTED = 600.0


def train(number: int, job: dict[str, Any], start: Any, report: Any) -> None:
    """A worker: warm up, wait for the others, train; reports when it began and ended, or what was wrong."""
    try:
        report.put(_trained(number, job, start))
    except Exception as error:
        start.abort()
        report.put({"error": f"worker {number}: {type(error).__name__}: {error}"})


def _trained(number: int, job: dict[str, Any], start: Any) -> dict[str, float]:
    import datasets
    from pairs import wait
    from transformers import BertConfig, BertForSequenceClassification, TrainerCallback

    from layerstill.heads import Classes
    from layerstill.recipe import Recipe, StudentSpec
    from layerstill.students.build import build_student
    from layerstill.training.arguments import Options, training_arguments
    from layerstill.training.module import DistillationModule
    from layerstill.training.trainer import DistillationTrainer

    torch.set_num_threads(job["threads"])
    torch.manual_seed(number)
    teacher = BertForSequenceClassification(BertConfig(**job["shape"], num_labels=2))
    student = build_student(teacher, job["shape"]["num_hidden_layers"] // 2, StudentSpec(), seed=number)
    batch, warmup, steps = job["batch_size"], job["warmup"], job["steps"]
    lengths = torch.randint(16, 64, (batch * (warmup + steps),)).tolist()
    data = datasets.Dataset.from_list(
        [{"input_ids": torch.randint(5, 1000, (n,)).tolist(), "labels": n % 2, "length": n} for n in lengths]
    )

    def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(example["length"] for example in examples)
        ids = torch.zeros(len(examples), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(examples):
            ids[row, : example["length"]] = torch.tensor(example["input_ids"])
            mask[row, : example["length"]] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([e["labels"] for e in examples])}

    class Marks(TrainerCallback):
        times: tuple[float, ...] = ()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in (warmup, warmup + steps):
                wait()
                if state.global_step == warmup:
                    start.wait(PATIENCE)
                self.times += (time.monotonic(),)

    kd = {
        "task": {"signal": "labels"},
        "soft targets": {"signal": "logits", "distance": {"kl": {"temperature": 2}}},
    }
    stage = {"epochs": 1, "learning_rate": 1e-4, "batch_size": batch, "objectives": kd}
    stage_ = Recipe.from_data({"stages": [stage]}).stages[0]
    marks = Marks()
    with tempfile.TemporaryDirectory() as folder:
        options = Options(progress=False, seed=number)
        args = training_arguments(stage_, Path(folder), options, "accuracy", len(data), 10**6)
        module = DistillationModule(student, teacher, stage_, number, Classes())
        trainer = DistillationTrainer(module, args, train_dataset=data, data_collator=collate, callbacks=[marks])
        args.save_strategy = "no"
        trainer.train()
    begun, ended = marks.times
    return {"begun": begun, "ended": ended}


def together(count: int, job: dict[str, Any]) -> dict[str, Any]:
    """So many workers at a time: steps a second of all of them."""
    context = multiprocessing.get_context("spawn")  # CUDA cannot go on in a fork
    start, report = context.Barrier(count), context.Queue()
    job = job | {"threads": max((os.cpu_count() or 1) // count, 1)}
    workers = [context.Process(target=train, args=(i, job, start, report), daemon=True) for i in range(count)]
    for worker in workers:
        worker.start()
    found = [report.get(timeout=2 * PATIENCE) for _ in workers]
    for worker in workers:
        worker.join(30)
    if errors := [one["error"] for one in found if "error" in one]:
        return {"workers": count, "error": errors[0]}
    seconds = max(one["ended"] for one in found) - min(one["begun"] for one in found)
    return {"workers": count, "seconds": seconds, "steps_per_second": count * job["steps"] / seconds}


def write_study(place: Path, runs: int, job: dict[str, Any]) -> Path:
    """A study of so many seeds, with everything that it needs."""
    import yaml
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"w{i}" for i in range(job["shape"]["vocab_size"] - len(special))]
    numbers = {word: number for number, word in enumerate([*special, *words])}
    backend = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    named = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    names = {f"{name}_token": token for name, token in named.items()}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=128, **names).save_pretrained(place / "model")
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(**job["shape"], num_labels=2)).save_pretrained(place / "model")
    (place / "data").mkdir()
    rng = torch.Generator().manual_seed(0)
    for split, rows in (("train", 32 * job["batch_size"]), ("dev", 64)):
        lines = []
        for number in range(rows):
            length = int(torch.randint(12, 60, (1,), generator=rng))
            drawn = torch.randint(2, len(words), (length,), generator=rng).tolist()
            lines.append({"text": " ".join(words[i] for i in [number % 2, *drawn]), "label": "ab"[number % 2]})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (place / "data" / f"{split}.jsonl").write_text(text, "utf-8")
    study = {
        "name": "many",
        "base": {
            "model": str(place / "model"),
            "recipe": "kd",
            "student_layers": job["shape"]["num_hidden_layers"] // 2,
            "batch_size": job["batch_size"],
            "max_length": 64,
            "total_steps": job["steps"],
        },
        "teacher": {"learning_rate": 1e-4, "max_steps": 20},
        "tasks": {"made": {"kind": "classification", "data": str(place / "data"), "text_columns": ["text"]}},
        "axes": {"task": ["made"], "seed": list(range(runs))},
        "keep": "results",
    }
    (place / "study.yaml").write_text(yaml.safe_dump(study), "utf-8")
    return place / "study.yaml"


def study(count: int, job: dict[str, Any]) -> dict[str, Any]:
    """A study of three runs for each of so many jobs: steps a second from its start to its end."""
    runs = 3 * count if job["steps"] > 10 else count
    with tempfile.TemporaryDirectory() as folder:
        file = write_study(Path(folder), runs, job)
        words = ["study", str(file), "--output", f"{folder}/out", "--jobs", str(count), "--quiet"]
        begun = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "layerstill", *words], capture_output=True, text=True)
        seconds = time.monotonic() - begun
    if done.returncode:
        return {"jobs": count, "error": (done.stderr.strip() or done.stdout.strip())[-500:]}
    return {"jobs": count, "runs": runs, "seconds": seconds, "steps_per_second": runs * job["steps"] / seconds}


def main() -> None:
    """Measure every number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--study", action="store_true")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    layers, width, heads = (4, 32, 2) if args.quick else (6, 384, 12)
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    job: dict[str, Any] = {
        "shape": shape | {"intermediate_size": 4 * width, "vocab_size": 1000 if args.quick else 30522},
        "batch_size": 8 if args.quick else 32,
        "steps": 8 if args.quick else args.steps,
        "warmup": 3 if args.quick else 20,
    }
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    record: dict[str, Any] = {
        "accelerator": name,
        "cores": os.cpu_count(),
        "kind": "study" if args.study else "workers",
    }
    record |= {"mps": "CUDA_MPS_PIPE_DIRECTORY" in os.environ, "wanted": WANTED, "found": []}
    for count in args.workers:
        found = (study if args.study else together)(count, job)
        record["found"].append(found)
        record["best"] = max((one["steps_per_second"] for one in record["found"] if "error" not in one), default=0.0)
        record["holds"] = record["best"] >= WANTED
        write_json(args.record, record)
        print(count, found.get("error") or f"{found['steps_per_second']:.1f} steps/s", flush=True)
    if all("error" in one for one in record["found"]):
        raise SystemExit("every number of workers failed")


if __name__ == "__main__":
    main()

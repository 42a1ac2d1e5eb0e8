"""Peak memory of attention recipes at length 512 over that of plain KD.

    python benchmarks/memory.py [--length 512] [--rounds 3]

Every recipe is a process of its own that trains three layers of all-MiniLM-L6-v2 under all six for three steps of
`--batch-size` full rows of random tokens, seed 0. The figure is the largest resident memory less that before the first
step, so that interpreter and weights are out of it; a GPU's is the allocator's peak. glibc is told to give memory back
(MALLOC_MMAP_THRESHOLD_): left alone it keeps what small tensors took, and the figures would be what it keeps.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys

RECIPES = ("kd", "att-mse", "att-kl", "att-kl+val-kl", "tinybert", "minilm", "minilmv2", "cr-ild")
BAR = 1.3


def measure(recipe: str, length: int, rows: int) -> float:
    """MB that three steps take beyond what was there before; run in a process of its own."""
    import torch
    from transformers import AutoModelForSequenceClassification, set_seed

    from layerstill.demo import find_base_model
    from layerstill.heads import Classes
    from layerstill.recipe import Recipe
    from layerstill.students.build import build_student
    from layerstill.training.module import DistillationModule

    set_seed(0)
    teacher = AutoModelForSequenceClassification.from_pretrained(find_base_model(), num_labels=2)
    loaded = Recipe.load(recipe)
    student = build_student(teacher, 3, loaded.student, seed=0)
    module = DistillationModule(student, teacher, loaded.stages[0], 0, Classes()).train()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module.to(device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)
    batch = {
        "input_ids": torch.randint(1000, 20000, (rows, length), device=device),
        "attention_mask": torch.ones(rows, length, dtype=torch.long, device=device),
        "labels": torch.randint(0, 2, (rows,), device=device),
    }
    before = peak(device)
    for _ in range(3):
        with torch.autocast(device, torch.bfloat16):
            loss = module(**batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        module.finish_step()
    return peak(device) - before


def peak(device: str) -> float:
    """MB of the largest memory so far."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if platform.system() == "Darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", action="append", choices=RECIPES)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(measure(args.alone, args.length, args.batch_size)))
        return
    wanted = dict.fromkeys(["kd", *(args.recipe or RECIPES)])
    found: dict[str, list[float]] = {recipe: [] for recipe in wanted}
    for _ in range(args.rounds):
        for recipe in wanted:
            words = [sys.executable, __file__, "--alone", recipe, "--length", str(args.length)]
            words += ["--batch-size", str(args.batch_size)]
            environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**18)}
            done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
            found[recipe].append(json.loads(done.stdout.splitlines()[-1]))
    plain = statistics.median(found["kd"])
    print(f"| recipe | MB at length {args.length}, batch {args.batch_size} (range) | over kd |\n|---|---|---|")
    for recipe, values in found.items():
        middle = statistics.median(values)
        verdict = "" if recipe == "kd" else " holds" if middle <= BAR * plain else " MISSED"
        print(f"| {recipe} | {middle:.0f} ({min(values):.0f} to {max(values):.0f}) | {middle / plain:.2f}{verdict} |")


if __name__ == "__main__":
    main()

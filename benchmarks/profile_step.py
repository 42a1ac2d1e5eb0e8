"""Where a student's training step goes: torch's profiler on three layers of all-MiniLM-L6-v2 with random tokens.

    python benchmarks/profile_step.py

Batch 32 x 80 tokens (70 of them real), bf16, seed 0. Kinds of step take turns: torch's own dropout or the cheap one of
layerstill, embeddings trained or not, layers compiled (`--compile`) where there is a compiler; beside them what a large
matrix product reaches, and what share of it each step is.
"""

import copy
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import NamedTuple

import torch
from torch.profiler import profile
from transformers import AutoModelForSequenceClassification, PreTrainedModel, set_seed

from layerstill.demo import find_base_model
from layerstill.families import layers_of, recorder_of
from layerstill.knowledge.capture import Captured, CapturePlan
from layerstill.recipe import StudentSpec
from layerstill.students.build import build_student
from layerstill.training.accounting import forward_flops, matmul_peak
from layerstill.training.dropout import CheapDropout
from layerstill.training.models import with_weights_in

ROWS, TOKENS, REAL = 32, 80, 70


class Kind(NamedTuple):
    """What is different about a step."""

    cheap: bool
    embeddings: bool
    compiled: bool = False

    def __str__(self) -> str:
        words = f"{'cheap' if self.cheap else 'torch'} dropout, embeddings {'trained' if self.embeddings else 'frozen'}"
        return words + ", compiled" * self.compiled


def make_step(kind: Kind) -> Callable[[], None]:
    """A function that trains a student of its own by one step."""
    set_seed(0)
    teacher = AutoModelForSequenceClassification.from_pretrained(find_base_model(), num_labels=2)
    student = build_student(teacher, 3, StudentSpec(), seed=0).train()
    student.base_model.embeddings.requires_grad_(kind.embeddings)
    if kind.compiled:
        for layer in layers_of(student):
            layer.forward = torch.compile(layer.forward, dynamic=True)
    ids, mask = torch.randint(1000, 20000, (ROWS, TOKENS)), torch.ones(ROWS, TOKENS, dtype=torch.long)
    mask[:, REAL:] = 0
    labels = torch.randint(0, 2, (ROWS,))
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-4, fused=True)
    dropout = CheapDropout if kind.cheap else nullcontext

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16), dropout():
            logits = student(input_ids=ids, attention_mask=mask).logits
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step.layers = layers_of(student)  # type: ignore[attr-defined]
    return step


def seconds(run: Callable[[], None], times: int = 4) -> float:
    """Mean duration."""
    begun = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - begun) / times


def compare_teachers() -> None:
    """Print time and error of a teacher's forward pass in bf16: fp32 weights under autocast, and bf16 weights."""
    set_seed(0)
    plain = AutoModelForSequenceClassification.from_pretrained(find_base_model(), num_labels=2).eval()
    halved = with_weights_in(copy.deepcopy(plain), torch.bfloat16)
    ids, mask = torch.randint(1000, 20000, (ROWS, TOKENS)), torch.ones(ROWS, TOKENS, dtype=torch.bool)
    mask[:, REAL:] = False
    plan = CapturePlan(hidden=frozenset([6]), logits=True)

    def run(model: PreTrainedModel, bf16: bool = True) -> Captured:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return recorder_of(model).run(plan, {"input_ids": ids}, mask)

    exact = run(plain, bf16=False).hidden[6]
    times: dict[str, list[float]] = {"fp32 weights, autocast": [], "bf16 weights": []}
    for _ in range(6):  # the first is not counted
        for name, model in zip(times, (plain, halved), strict=True):
            times[name].append(seconds(lambda model=model: run(model)))
    for name, model in zip(times, (plain, halved), strict=True):
        error = float((run(model).hidden[6].float() - exact).norm() / exact.norm())
        print(f"teacher, {name:24} {median(times[name][1:]):.3f} s, last hidden states off by {error:.2%}")


def main() -> None:
    kinds = [Kind(cheap, embeddings) for cheap in (False, True) for embeddings in (True, False)]
    if shutil.which("g++") or torch.cuda.is_available():
        kinds.append(Kind(True, False, compiled=True))
    steps = {kind: make_step(kind) for kind in kinds}
    flops = 3 * forward_flops(steps[kinds[0]].layers, 384, ROWS, TOKENS)
    found: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    for step in steps.values():
        step()
    for _ in range(5):
        for kind, step in steps.items():
            found[kind].append(seconds(step))
    peak = matmul_peak(torch.device("cpu"), torch.bfloat16)
    print(f"large product: {peak / 1e9:.0f} GFLOP/s")
    for kind, times in found.items():
        middle = median(times)
        share = f"{flops / middle / peak:.0%} of the product"
        print(f"{kind!s:46} {middle:.3f} s ({min(times):.3f} to {max(times):.3f}), {share}")
    compare_teachers()
    with profile() as recorded:
        for _ in range(3):
            steps[Kind(True, True)]()
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=40))


if __name__ == "__main__":
    main()

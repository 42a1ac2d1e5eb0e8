"""Where a student's training step goes: torch's profiler on three layers of all-MiniLM-L6-v2 with random tokens.

    python benchmarks/profile_step.py

Batch 32 x 80 tokens, bf16, embeddings not trained, seed 0; beside it what a large matrix product reaches.
"""

import time

import torch
from torch.profiler import profile
from transformers import AutoModelForSequenceClassification, set_seed

from layerstill.demo import find_base_model
from layerstill.recipe import StudentSpec
from layerstill.students.build import build_student


def main() -> None:
    set_seed(0)
    teacher = AutoModelForSequenceClassification.from_pretrained(find_base_model(), num_labels=2)
    student = build_student(teacher, 3, StudentSpec(), seed=0).train()
    student.base_model.embeddings.requires_grad_(False)
    ids, mask = torch.randint(1000, 20000, (32, 80)), torch.ones(32, 80, dtype=torch.long)
    labels = torch.randint(0, 2, (32,))
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = student(input_ids=ids, attention_mask=mask).logits
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    square = torch.randn(2048, 2048, dtype=torch.bfloat16)
    print(f"large product: {2 * 2048**3 / seconds(lambda: square @ square) / 1e9:.0f} GFLOP/s")
    print(f"step: {seconds(step):.3f} s")
    with profile() as recorded:
        for _ in range(3):
            step()
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=40))


def seconds(run, times: int = 6) -> float:
    """Mean duration after one call that does not count."""
    run()
    begun = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - begun) / times


if __name__ == "__main__":
    main()

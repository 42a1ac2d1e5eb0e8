"""The batches of workers that do not use layerstill's own loader. Needs torch alone."""

import json
from pathlib import Path
from typing import Any

import torch


def device() -> str:
    """Where workers train."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    """Until a GPU has done what it was asked for, so that a clock may be read."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_mb() -> float:
    """Largest memory of the GPU, or of this process where there is none, in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def batches(job: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
    """Those of the warm-up, then those that are timed; padded to the full length or to the longest text of each."""
    rows = json.loads(Path(job["rows"]).read_text("utf-8"))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(job["seed"])).tolist()
    made = []
    size, timed = job["batch_size"], job["steps"] * job["batch_size"]
    # The examples that are timed are layerstill's; those of the warm-up come from the end.
    for start in [*range(len(order) - job["warmup"] * size, len(order), size), *range(0, timed, size)]:
        part = [rows[i] for i in order[start : start + size]]
        longest = job["max_length"] if job["arm"].endswith("padded") else max(len(r["input_ids"]) for r in part)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
        for i, row in enumerate(part):
            n = len(row["input_ids"])
            ids[i, :n], types[i, :n], mask[i, :n] = (
                torch.tensor(row["input_ids"]),
                torch.tensor(row["token_type_ids"]),
                1,
            )
        labels = torch.tensor([row["label"] for row in part])
        made.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": labels})
    return made

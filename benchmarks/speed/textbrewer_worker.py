"""One timed training with TextBrewer, run by `compare.py` in TextBrewer's own environment. Prints one JSON line.

Written as TextBrewer's examples are: adaptors, intermediate matches, AdamW, batches from a plain data loader; padded to
the full length, or to the longest text of the batch. Attention maps need eager attention.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
from transformers import AutoModelForSequenceClassification


def batches(job: dict) -> list[dict]:
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


class Timed:
    """A data loader that notes when each batch is asked for."""

    def __init__(self, made: list[dict]) -> None:
        self.made = made
        self.asked: list[float] = []

    def __len__(self) -> int:
        return len(self.made)

    def __iter__(self):
        for batch in self.made:
            self.asked.append(time.perf_counter())
            yield batch
        self.asked.append(time.perf_counter())


MATCHES = {
    "hidden+attention": [
        {"layer_T": 2 * k, "layer_S": k, "feature": "hidden", "loss": "hidden_mse", "weight": 1} for k in (1, 2, 3)
    ]
    + [
        {"layer_T": 2 * k - 1, "layer_S": k - 1, "feature": "attention", "loss": "attention_mse", "weight": 1}
        for k in (1, 2, 3)
    ],
    "rail": [{"layer_T": 2 * k, "layer_S": k, "feature": "hidden", "loss": "hidden_mse", "weight": 1} for k in (1, 2)],
    "logits": [],
    "last layer": [
        {"layer_T": 6, "layer_S": 3, "feature": "hidden", "loss": "hidden_mse", "weight": 1},
        {"layer_T": 5, "layer_S": 2, "feature": "attention", "loss": "attention_mse", "weight": 1},
    ],
}


def main() -> None:
    job = json.loads(sys.argv[1])
    torch.manual_seed(job["seed"])
    matches = MATCHES[job["workload"]]
    features = {m["feature"] for m in matches}
    kernel = {"attn_implementation": "eager"} if "attention" in features else {}
    teacher = AutoModelForSequenceClassification.from_pretrained(job["teacher"], **kernel)
    student = AutoModelForSequenceClassification.from_pretrained(job["student"], **kernel)
    asked = {"output_hidden_states": "hidden" in features, "output_attentions": "attention" in features}

    def adaptor(batch: dict, outputs) -> dict:
        found = {"logits": outputs.logits, "losses": outputs.loss, "inputs_mask": batch["attention_mask"]}
        if asked["output_hidden_states"]:
            found["hidden"] = outputs.hidden_states
        if asked["output_attentions"]:
            found["attention"] = outputs.attentions
        return found

    with tempfile.TemporaryDirectory() as folder:
        distiller = GeneralDistiller(
            TrainingConfig(device="cpu", output_dir=folder),
            DistillationConfig(temperature=2, hard_label_weight=1, intermediate_matches=matches),
            teacher,
            student,
            adaptor,
            adaptor,
        )
        loader = Timed(batches(job))
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
        with distiller:
            distiller.train(optimizer, loader, num_epochs=1, max_grad_norm=1.0, **asked)
    seconds = loader.asked[-1] - loader.asked[job["warmup"]]
    examples = sum(len(b["labels"]) for b in loader.made[job["warmup"] :])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"examples_per_second": examples / seconds, "seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main()

"""One timed training with TextBrewer, run by `compare.py` in TextBrewer's own environment. Prints one JSON line.

Written as TextBrewer's examples are: adaptors, intermediate matches, AdamW, batches from a plain data loader; padded to
the full length, or to the longest text of the batch. Attention maps need eager attention. Arms that end in `tf32`
multiply in TF32, which is a GPU's.
"""

import json
import sys
import tempfile
import time

import torch
from pairs import batches, device, peak_mb, wait
from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
from transformers import AutoConfig, AutoModelForSequenceClassification


class Timed:
    """A data loader that notes when the batch after the warm-up is asked for, and when there are no more."""

    def __init__(self, made: list[dict], warmup: int) -> None:
        self.made = made
        self.warmup = warmup
        self.asked: list[float] = []

    def __len__(self) -> int:
        return len(self.made)

    def __iter__(self):
        for number, batch in enumerate(self.made):
            if number == self.warmup:
                self.note()
            yield batch
        self.note()

    def note(self) -> None:
        """The time, when everything that was asked for is done."""
        wait()
        self.asked.append(time.perf_counter())


def matches_of(workload: str, depths: tuple[int, int]) -> list[dict]:
    """The layers that meet, of teacher and student: k T/S and k; attention maps are counted from 0."""
    T, S = depths
    every = T // S
    hidden = [
        {"layer_T": every * k, "layer_S": k, "feature": "hidden", "loss": "hidden_mse", "weight": 1}
        for k in range(1, S + 1)
    ]
    maps = [
        {"layer_T": every * k - 1, "layer_S": k - 1, "feature": "attention", "loss": "attention_mse", "weight": 1}
        for k in range(1, S + 1)
    ]
    return {"hidden+attention": hidden + maps, "rail": hidden[:-1], "logits": [], "last layer": [hidden[-1], maps[-1]]}[
        workload
    ]


def main() -> None:
    job = json.loads(sys.argv[1])
    torch.manual_seed(job["seed"])
    torch.backends.cuda.matmul.allow_tf32 = job["arm"].endswith("tf32")
    depths = [AutoConfig.from_pretrained(job[name]).num_hidden_layers for name in ("teacher", "student")]
    matches = matches_of(job["workload"], (depths[0], depths[1]))
    features = {m["feature"] for m in matches}
    kernel = {"attn_implementation": "eager"} if "attention" in features else {}
    teacher = AutoModelForSequenceClassification.from_pretrained(job["teacher"], **kernel).to(device())
    student = AutoModelForSequenceClassification.from_pretrained(job["student"], **kernel).to(device())
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
            TrainingConfig(device=device(), output_dir=folder),
            DistillationConfig(temperature=2, hard_label_weight=1, intermediate_matches=matches),
            teacher,
            student,
            adaptor,
            adaptor,
        )
        loader = Timed(batches(job), job["warmup"])
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
        with distiller:
            distiller.train(optimizer, loader, num_epochs=1, max_grad_norm=1.0, **asked)
    seconds = loader.asked[-1] - loader.asked[0]
    examples = sum(len(b["labels"]) for b in loader.made[job["warmup"] :])
    print(json.dumps({"examples_per_second": examples / seconds, "seconds": seconds, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()

"""One timed training in a plain loop around Hugging Face models, run by `card.py`. Prints one JSON line.

What somebody writes by hand for a GPU: bf16 under autocast, both models in fp32, the fused AdamW, batches padded to
their longest text from pinned memory; of the losses, hidden states and attention maps as transformers gives them, which
needs eager attention. The arm `plain alone` trains the student by itself.
"""

import json
import sys
import time

import torch
from pairs import batches, device, peak_mb, wait
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedModel


def loss_of(student: PreTrainedModel, teacher: PreTrainedModel | None, batch: dict[str, Tensor]) -> Tensor:
    """Labels, soft targets at temperature 2, and MSE of states and maps, layer k of S with layer k T/S of T."""
    labels = batch["labels"]
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    if teacher is None:
        return functional.cross_entropy(student(**inputs).logits.float(), labels)
    wanted = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        theirs = teacher(**inputs, **wanted)
    ours = student(**inputs, **wanted)
    every = teacher.config.num_hidden_layers // student.config.num_hidden_layers
    loss = functional.cross_entropy(ours.logits.float(), labels)
    both = (ours.logits.float() / 2, theirs.logits.float() / 2)
    loss = loss + 4 * functional.kl_div(both[0].log_softmax(-1), both[1].softmax(-1), reduction="batchmean")
    for mine, other in zip(ours.attentions, theirs.attentions[every - 1 :: every], strict=True):
        loss = loss + functional.mse_loss(mine.float(), other.float())
    for mine, other in zip(ours.hidden_states[1:], theirs.hidden_states[every::every], strict=True):
        loss = loss + functional.mse_loss(mine.float(), other.float())
    return loss


def main() -> None:
    """Warm up, time, print."""
    job = json.loads(sys.argv[1])
    torch.manual_seed(job["seed"])
    where = device()
    alone = job["arm"].endswith("alone")
    kernel = {} if alone else {"attn_implementation": "eager"}

    def loaded(name: str) -> PreTrainedModel:
        return AutoModelForSequenceClassification.from_pretrained(job[name], **kernel).to(where)

    student, teacher = loaded("student").train(), None if alone else loaded("teacher").eval()
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)
    made = batches(job)
    if where == "cuda":
        made = [{name: values.pin_memory() for name, values in batch.items()} for batch in made]
    begun = 0.0
    for number, batch in enumerate(made):
        if number == job["warmup"]:
            wait()
            begun = time.perf_counter()
        there = {name: values.to(where, non_blocking=True) for name, values in batch.items()}
        with torch.autocast(where, torch.bfloat16):
            loss = loss_of(student, teacher, there)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    wait()
    seconds = time.perf_counter() - begun
    examples = sum(len(batch["labels"]) for batch in made[job["warmup"] :])
    print(json.dumps({"examples_per_second": examples / seconds, "seconds": seconds, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()

"""How long a model takes for one example."""

import statistics
import time

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@torch.no_grad()
def latency_ms(
    models: dict[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    texts: list[tuple[str, ...]],
    rounds: int = 3,
) -> dict[str, float]:
    """Median milliseconds for one example at a time on the CPU, tokenisation included.

    The models take turns on each text, so that a slow moment of the machine meets them all.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.eval().to("cpu")
    for turn in range(rounds + 1):
        for text in texts:
            for name, model in models.items():
                start = time.perf_counter()
                model(**tokenizer(*text, return_tensors="pt", truncation=True))
                if turn:  # the first turn warms up
                    times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}

"""Every objective's value on given examples, as training computes it but in evaluation mode: overfitting seen early."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from layerstill.training.module import DistillationModule


def batches_by_length(lengths: Sequence[int], rows: Sequence[int], size: int) -> list[list[int]]:
    """`rows` in batches of `size`, shortest first, so that little is padded; the same every time."""
    ordered = sorted(rows, key=lambda i: (lengths[i], i))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


@torch.no_grad()
def add_up_objectives(
    module: DistillationModule, batches: Iterable[dict[str, Any]], device: torch.device | str
) -> Tensor:
    """`(2, objectives)` float64: each objective's mean on a batch times the batch's units, and the units, added up.

    The quotient is the objective over all batches as one step of training would have it, without dropout and before
    its weight. Random mappings are those of the module's clock; under mixup the batches share the lambda of the next
    step. The teacher is asked and not its cache, which knows training examples only and may be rounded. A process
    without batches adds nothing.
    """
    training, cache, flops = module.training, module.source.cache, module.flops
    sums = torch.zeros(2, len(module.objectives), dtype=torch.float64, device=device)
    module.eval()
    module.source.cache = None
    try:
        for batch in batches:
            terms, _ = module.terms(batch)
            units = module.weight_of(batch)
            sums += torch.stack([torch.stack([term.value.double() for term in terms.values()]) * units, units])
    finally:
        module.source.cache, module.flops = cache, flops  # what is only looked at is no cost of training
        module.train(training)
    return sums

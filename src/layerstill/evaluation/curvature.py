"""The Hessian of the loss at the end of training: its largest eigenvalue and its trace.

Only products of the Hessian H with vectors are computed, each by two backward passes: H v = d (g^T v) / d weights with
g = d loss / d weights. Large values mean a sharp minimum. All weights count, biases, norms and embeddings too.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from layerstill.evaluation.flatness import Tick, labels_in
from layerstill.evaluation.predict import Batch
from layerstill.heads import Head
from layerstill.randomness import named_seed

log = logging.getLogger("layerstill")

PROBES = 32
"""Random vectors for the trace."""
BASIS = 12
"""Lanczos vectors that are kept, each as long as all weights together."""
TOLERANCE = 1e-2
"""Largest relative error of the eigenvalue; what is met is usually its square."""
RESTARTS = 100


@dataclass
class Hessian:
    """The Hessian of a loss with respect to `parameters`, known by its products with vectors.

    The loss comes in parts that are added up; each is computed anew for every product. Parameters that no part reaches
    have zeros. The parts must be twice differentiable, which fused attention is not: products run under torch's plain
    attention.
    """

    parts: Sequence[Callable[[], Tensor]]
    parameters: list[nn.Parameter]
    tick: Tick = field(default=lambda: None)

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.parameters)

    @property
    def dtype(self) -> np.dtype:
        """Precision of the weights."""
        return torch.empty(0, dtype=self.parameters[0].dtype).numpy().dtype

    def times(self, vector: np.ndarray) -> np.ndarray:
        """H v for `v` `(size,)`."""
        first = self.parameters[0]
        flat = torch.from_numpy(np.ascontiguousarray(vector, self.dtype).reshape(-1)).to(first.device)
        sizes = [p.numel() for p in self.parameters]
        pieces = [v.view_as(p) for v, p in zip(flat.split(sizes), self.parameters, strict=True)]
        total = torch.zeros_like(flat)
        for part in self.parts:
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                gradients = torch.autograd.grad(
                    part(), self.parameters, create_graph=True, allow_unused=True, materialize_grads=True
                )
                product = torch.stack([(g * v).sum() for g, v in zip(gradients, pieces, strict=True)]).sum()
                rows = torch.autograd.grad(product, self.parameters, allow_unused=True, materialize_grads=True)
            total += torch.cat([row.reshape(-1) for row in rows])
        self.tick()
        return total.cpu().numpy()

    def top_eigenvalue(self, seed: int) -> float | None:
        """The largest eigenvalue (the most positive one), by Lanczos with restarts; None if it does not settle."""
        rng = np.random.default_rng(named_seed(seed, "lanczos"))
        start = rng.standard_normal(self.size).astype(self.dtype)
        operator = LinearOperator((self.size, self.size), matvec=self.times, dtype=self.dtype)
        basis = min(BASIS, self.size)
        try:
            found = eigsh(
                operator,
                k=1,
                which="LA",
                v0=start,
                ncv=basis,
                tol=TOLERANCE,
                maxiter=RESTARTS,
                return_eigenvectors=False,
            )
        except ArpackNoConvergence:
            log.warning("note: the largest eigenvalue of the Hessian has not settled after %d restarts", RESTARTS)
            return None
        return float(found[0])

    def trace(self, seed: int, probes: int = PROBES) -> tuple[float, float]:
        """The trace and its standard error, by Hutchinson's estimate: the mean of v^T H v over random signs v."""
        estimates = []
        for probe in range(probes):
            rng = np.random.default_rng(named_seed(seed, "hutchinson", probe))
            signs = (2 * rng.integers(0, 2, self.size, dtype=np.int8) - 1).astype(self.dtype)
            estimates.append(float(signs.astype(np.float64) @ self.times(signs)))
        return float(np.mean(estimates)), float(np.std(estimates, ddof=1) / np.sqrt(probes))


def hessian_of(model: nn.Module, batches: list[Batch], head: Head, tick: Tick = lambda: None) -> Hessian:
    """The Hessian of the mean loss over all labels, of a model in evaluation mode."""
    count = labels_in(batches, head)

    def part(batch: Batch) -> Tensor:
        return head.errors(model(**batch.inputs).logits, batch.known["labels"]).sum() / count

    model.eval().requires_grad_(True)
    return Hessian([partial(part, batch) for batch in batches], list(model.parameters()), tick)

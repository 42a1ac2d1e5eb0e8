"""A bound objective: an objective that knows the shapes of student and teacher, and computes its term."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from layerstill.errors import UserError
from layerstill.knowledge.alignment import Aligner, SameAs
from layerstill.knowledge.capture import Captured, CapturePlan, MapName
from layerstill.knowledge.distances import MSE, Distance
from layerstill.knowledge.mappings import Mapping, Pair, layer_name
from layerstill.knowledge.objective import Objective
from layerstill.knowledge.products import Product, squared_error
from layerstill.knowledge.signals import Attention, HiddenStates, Labels, Logits, Relation, Signal, Unit
from layerstill.knowledge.views import Mixup
from layerstill.randomness import generator

MAP_ELEMENTS = 8 * 2**20
"""Elements of a token-by-token map up to which it is compared as a whole."""
PART_ELEMENTS = 2**20
"""Elements of a part otherwise; comparing takes several tensors of its size for either model."""


class ModelShape(NamedTuple):
    """What an objective must know of a model."""

    layers: int
    width: int
    heads: int
    inner: int
    """Heads times head width: what relations are cut from."""
    causal: bool = False
    sees_all: bool = False
    """Every layer's attention looks at all pairs of real tokens and adds no position bias."""


@dataclass(frozen=True)
class Target:
    """What the student is compared with: a share of the term, whose tensors, and which tokens count."""

    captured: Captured
    mask: Tensor
    aligner: Aligner | None = None
    share: float = 1.0
    partner: bool = False
    """Whether each example is compared with its partner's tensors (the second half of a mixed target)."""

    def part(self, rows: slice, heads: slice, layer: int, relation_heads: int | None) -> "Target":
        """Attention of `layer` for some examples; of their partners, which are mirror images, where they count."""
        there = slice(len(self.mask) - rows.stop, len(self.mask) - rows.start) if self.partner else rows
        record = self.captured.attention[layer].part(there, heads, relation_heads)
        captured = Captured(self.captured.mask[there], attention={layer: record})
        return replace(self, captured=captured, mask=self.mask[rows])


@dataclass(frozen=True)
class Term:
    """Value of an objective on a batch, before its weight."""

    value: Tensor
    spread: Tensor | None = None
    """Variance of the teacher-side vectors over the batch when their map is trained: near 0 it has collapsed."""


class BoundObjective:
    """An objective bound to the shapes of a student and a teacher.

    `teacher` is None when the recipe has none. `regression` says that the task head puts out one score.
    """

    def __init__(
        self, name: str, spec: Objective, student: ModelShape, teacher: ModelShape | None, regression: bool, seed: int
    ) -> None:
        self.name = name
        self.spec = spec
        self.student = student
        self.signal: Signal = spec.signal
        self.regression = regression
        self.seed = seed
        self.distance: Distance | None = spec.distance
        if regression and isinstance(self.signal, Logits):
            assert spec.distance is not None
            self.distance = spec.distance.for_scores()
        self.source = student if spec.consistent else teacher
        if self.source is None and not isinstance(self.signal, Labels):
            raise UserError(f"objective {name!r} needs a teacher, and there is none; `finetune` is the recipe without")
        self.student_layers, self.target_layers = self._candidates()
        self._refuse_unequal_heads()
        self._refuse_blind_tokens()
        self.by_factors = self._compares_products()

    def _candidates(self) -> tuple[list[int], list[int]]:
        if self.spec.mapping is None:
            return [0], [0]
        assert self.source is not None
        try:
            layers = self.spec.mapping.candidates(self.student.layers, self.source.layers)
        except UserError as error:
            raise UserError(f"objective {self.name!r}: {error}") from None
        if self.signal.inside and 0 in (*layers[0], *layers[1]):
            raise UserError(
                f"objective {self.name!r}: attention and relations live inside layers; embeddings have none"
            )
        if not layers[0]:
            raise UserError(f"objective {self.name!r}: its mapping leaves no pair for {self.student.layers} layers")
        return layers

    def _refuse_unequal_heads(self) -> None:
        heads = self.signal.heads if isinstance(self.signal, Relation) else None
        for side, shape in (("student", self.student), ("teacher", self.source)):
            if heads is not None and shape is not None and shape.inner % heads:
                fits = [n for n in range(1, shape.inner + 1) if shape.inner % n == 0]
                raise UserError(
                    f"objective {self.name!r}: {heads} relation heads do not divide the {side}'s width {shape.inner}; "
                    f"use {', '.join(map(str, fits))}"
                )
        own_heads = self.signal.inside and heads is None
        if own_heads and self.source is not None and self.student.heads != self.source.heads:
            raise UserError(
                f"objective {self.name!r}: the student has {self.student.heads} attention heads and the teacher "
                f"{self.source.heads}, so their maps cannot be compared; give the student as many "
                "(student.attention_heads), or use signal relation with heads set"
            )

    def _refuse_blind_tokens(self) -> None:
        if isinstance(self.signal, HiddenStates) and self.signal.pool == "first" and self.student.causal:
            raise UserError(
                f"objective {self.name!r}: in a causal model the first token sees only itself, so it says nothing "
                "about the text; use pool: last or pool: mean"
            )
        if isinstance(self.signal, Labels) and isinstance(self.spec.view, Mixup) and self.student.causal:
            raise UserError(
                f"objective {self.name!r}: a causal model answers at an example's last token, before the end of a "
                "longer partner, so the partner's label is no target under mixup; set view: clean there"
            )

    @property
    def student_plan(self) -> CapturePlan:
        """What the student must give away on this objective's view."""
        return self.signal.plan(self.student_layers)

    @property
    def target_plan(self) -> CapturePlan:
        """What the target must give away; empty for labels."""
        return CapturePlan() if isinstance(self.signal, Labels) else self.signal.plan(self.target_layers)

    @property
    def map_name(self) -> Hashable:
        """What this objective's signal calls its maps; None for signals that are none."""
        return self.signal.map_name if isinstance(self.signal, Attention | Relation) else None

    @property
    def unit(self) -> Unit:
        """What this objective's counts are proportional to."""
        unit = self.signal.unit(self.distance.counts if self.distance else "rows")
        causal = isinstance(self.signal, Attention) and self.student.causal
        return "causal_pairs" if causal and unit == "token_pairs" else unit

    def build_aligner(self) -> Aligner | None:
        """The maps of this objective; None if it uses another's."""
        if isinstance(self.spec.alignment, SameAs) or not self.signal.vectors:
            return None
        assert self.source is not None
        layers = (self.student_layers, self.target_layers)
        try:
            return self.spec.alignment.build(self.student.width, self.source.width, layers, len(self.pairs(0, 0)))
        except UserError as error:
            raise UserError(f"objective {self.name!r}: {error}") from None

    def pairs(self, epoch: int, step: int) -> list[Pair]:
        """The pairs in force; the same on every process and after a resume."""
        mapping: Mapping | None = self.spec.mapping
        if mapping is None or self.source is None:
            return [Pair(0, 0)]
        rng = generator(self.seed, "mapping", self.name, mapping.period(epoch, step))
        return mapping.draw_pairs(self.student.layers, self.source.layers, rng)

    def describe_pairs(self) -> list[str]:
        """`layer 1 <- layer 4` for each pair; for a random mapping the candidates."""
        if self.spec.mapping is None:
            return []
        if self.spec.mapping.redraws:
            names = ", ".join(layer_name(k) for k in self.target_layers)
            return [f"{layer_name(k)} <- drawn from {names}, sorted" for k in self.student_layers]
        return [f"{layer_name(p.student)} <- {layer_name(p.teacher)}" for p in self.pairs(0, 0)]

    def against_labels(self, captured: Captured, targets: Sequence[tuple[float, Tensor]], scale: Tensor) -> Term:
        """The task's loss on logits `(B, C)` against labels `(B,)`, each with a share (two under mixup)."""
        logits = captured.logits
        assert logits is not None
        logits = logits if logits.dtype == torch.float64 else logits.float()
        total = logits.new_zeros(())
        for share, labels in targets:
            if self.regression:
                error = (logits.squeeze(-1) - labels.to(logits.dtype)) ** 2
            else:
                error = F.cross_entropy(logits, labels, reduction="none")
            total = total + share * error.sum() / len(labels) * scale
        return Term(total)

    def against(
        self,
        student: Captured,
        targets: Sequence[Target],
        aligner: Aligner | None,
        pairs: Sequence[Pair],
        scale: Tensor,
    ) -> Term:
        """The term against captured tensors.

        `scale` is this batch's share of the units (examples, tokens, ...) of the whole optimiser step, so that sums
        over micro-batches and processes give the mean over all of them.
        """
        total, spread = scale.new_zeros(()), None
        groups = [pairs] if aligner is not None and aligner.concatenates else [[pair] for pair in pairs]
        for target in targets:
            for group in groups:
                amount, count, t = self._compare(student, target, aligner, group)
                total = total + target.share * group[0].weight * amount / count.clamp(min=1) * scale
                if aligner is not None and aligner.trains_teacher_side and t is not None and t.ndim == 2:
                    unit_vectors = F.normalize(t.detach().float(), dim=-1)
                    spread = unit_vectors.var(0, unbiased=False).sum() if spread is None else spread
        return Term(total / len(groups) if self.spec.layers == "mean" else total, spread)

    def _compare(
        self, student: Captured, target: Target, aligner: Aligner | None, group: Sequence[Pair]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Sum and count of the distance over the pairs in `group`, and the target's values.

        Token-by-token maps larger than `MAP_ELEMENTS` are compared a few examples or heads at a time and computed again
        in the backward pass, so that only one part of them is ever in memory; then there are no values to give back.
        """
        assert self.distance is not None
        parts = self._parts(student, target, group[0])
        record = student.attention[group[0].student] if self.signal.inside else None
        maps = {(group[0].student, self.map_name), (group[0].teacher, self.map_name)}
        at_hand = len(parts) == 1 and maps & (student.shared | target.captured.shared)
        if self.by_factors and not at_hand:
            return *self._compare_products(student, target, group), None
        if record is None or len(parts) == 1:
            s, t, mask = self._meet(student, target, aligner, group)
            return *self.distance(s, t, mask), t
        distance = self.distance
        cut = self.signal.heads if isinstance(self.signal, Relation) else None

        def compare(q: Tensor, k: Tensor, v: Tensor, rows: slice, heads: slice) -> tuple[Tensor, Tensor]:
            layer = group[0].student
            record = _with(student, layer, q, k, v).attention[layer].part(rows, heads, cut)
            part = Captured(student.mask[rows], attention={layer: record})
            return distance(*self._meet(part, target.part(rows, heads, group[0].teacher, cut), aligner, group))

        vectors = record.query, record.key, record.value
        sums = [checkpoint(compare, *vectors, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        amounts, counts = zip(*sums, strict=True)
        return torch.stack(amounts).sum(), torch.stack(counts).sum(), None

    def _compare_products(self, student: Captured, target: Target, group: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Sum and count of the squared error between two maps that are products, read as their factors."""
        assert isinstance(self.signal, Attention | Relation)
        (pair,) = group
        of_student = self.signal.product(student.attention[pair.student])
        left, right, scale = self.signal.product(target.captured.attention[pair.teacher])
        own = self._own_mask(target)
        if target.partner:
            left, right, own = left.flip(0), right.flip(0), own.flip(0)
        tokens = target.mask & own
        amount = squared_error(of_student, Product(left, right, scale), tokens)
        return amount, self._heads * tokens.sum(1).square().sum()

    @property
    def _heads(self) -> int:
        """Maps of one layer and example."""
        return (self.signal.heads if isinstance(self.signal, Relation) else None) or self.student.heads

    def _compares_products(self) -> bool:
        """Whether the squared error is asked for between maps that are products among all real tokens."""
        if not isinstance(self.distance, MSE) or self.spec.padding == "included":
            return False
        if isinstance(self.signal, Attention):
            assert self.source is not None
            return self.signal.form == "scores" and self.student.sees_all and self.source.sees_all
        return isinstance(self.signal, Relation)

    def _parts(self, student: Captured, target: Target, pair: Pair) -> list[tuple[slice, slice]]:
        """Examples and heads that are compared at a time."""
        size, tokens = student.mask.shape
        whole = slice(None)
        if not self.signal.inside or size * self._heads * tokens**2 <= MAP_ELEMENTS:
            return [(slice(0, size), whole)]
        rows = max(PART_ELEMENTS // (self._heads * tokens**2), 1)
        records = student.attention[pair.student], target.captured.attention[pair.teacher]
        recut = isinstance(self.signal, Relation) and self.signal.heads is not None
        heads = [whole]
        if rows == 1 and (recut or all(record.separable for record in records)):
            some = max(PART_ELEMENTS // tokens**2, 1)
            heads = [slice(start, start + some) for start in range(0, self._heads, some)]
        return [(slice(i, min(i + rows, size)), some) for i in range(0, size, rows) for some in heads]

    def _meet(
        self, student: Captured, target: Target, aligner: Aligner | None, group: Sequence[Pair]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read both sides of the pairs in `group`, bring them into one space, and intersect what may be compared."""
        assert self.distance is not None
        how = (self.spec.padding, self.distance.reads)
        read_s, read_t = [], []
        for pair in group:
            read_s.append(self.signal.read(student, pair.student, target.mask, *how))
            values, mask = self.signal.read(target.captured, pair.teacher, self._own_mask(target), *how)
            read_t.append((values.flip(0), mask.flip(0)) if target.partner else (values, mask))
        s, t = (torch.cat([v for v, _ in side], -1) if len(group) > 1 else side[0][0] for side in (read_s, read_t))
        t = t.detach()
        mask = torch.stack([a & b for (_, a), (_, b) in zip(read_s, read_t, strict=True)]).all(0)
        if aligner is not None and aligner.student is not None:
            s = aligner.student(s, group[0].student)
        if self.spec.consistent:
            own = target.aligner
            if own is not None and own.student is not None:
                t = own.student(t, group[0].teacher).detach()
        elif aligner is not None and aligner.teacher is not None:
            t = aligner.teacher(t, group[0].teacher)
        return s, t, mask

    @staticmethod
    def _own_mask(target: Target) -> Tensor:
        return target.mask.flip(0) if target.partner else target.mask


def _with(captured: Captured, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Captured:
    """The same with these vectors at a layer: checkpoint sees gradients through a function's arguments only."""
    record = replace(captured.attention[layer], query=query, key=key, value=value)
    return Captured(captured.mask, attention={layer: record})


def shared_maps(readers: Iterable[BoundObjective], side: Literal["student", "target"]) -> frozenset[MapName]:
    """The maps of one side that are read more than once; an objective that reads twice is among `readers` twice."""
    times: Counter[MapName] = Counter()
    for o in readers:
        if o.map_name is not None:
            times.update((k, o.map_name) for k in (o.student_layers if side == "student" else o.target_layers))
    return frozenset(name for name, n in times.items() if n > 1)

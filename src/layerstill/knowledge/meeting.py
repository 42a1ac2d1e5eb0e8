"""Where both sides of a term meet: read, mapped into one space, joined or mixed, related, and compared.

Token-by-token maps are large. Squared errors between maps that are products are computed from their factors, other
large ones a few examples or heads at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from layerstill.knowledge.alignment import Aligner
from layerstill.knowledge.capture import Captured
from layerstill.knowledge.counting import Places
from layerstill.knowledge.distances import Distance, SumCount
from layerstill.knowledge.gathering import gather_rows
from layerstill.knowledge.mappings import Group
from layerstill.knowledge.objective import Objective
from layerstill.knowledge.products import Product, squared_error
from layerstill.knowledge.signals import Signal

MAP_ELEMENTS = 8 * 2**20
"""Elements of a token-by-token map up to which it is compared as a whole."""
PART_ELEMENTS = 2**20
"""Elements of a part otherwise; comparing takes several tensors of its size for either model."""


@dataclass(frozen=True)
class Target:
    """What the student is compared with: a share of the term, whose tensors, and which places count."""

    captured: Captured
    places: Places
    """In the order of the student's rows."""
    aligner: Aligner | None = None
    share: float = 1.0
    own: Places | None = None
    """The places in its own tokens, if it cuts texts otherwise than the student; then no token-by-token map is read."""
    partner: bool = False
    """Whether each example is compared with its partner's tensors (the second half of a mixed target)."""

    def part(self, rows: slice, heads: slice, layer: int, relation_heads: int | None) -> "Target":
        """Attention of `layer` for some examples; of their partners, which are mirror images, where they count."""
        size = len(self.places.tokens)
        there = slice(size - rows.stop, size - rows.start) if self.partner else rows
        record = self.captured.attention[layer].part(there, heads, relation_heads)
        captured = Captured(self.captured.mask[there], attention={layer: record})
        return replace(self, captured=captured, places=self.places.rows(rows))


class Meeting:
    """How the layers of an objective's groups are compared.

    `heads` are the student's attention heads; `by_factors` says that the squared error between maps that are products
    is asked for, so that no map need be made.
    """

    def __init__(self, spec: Objective, distance: Distance, heads: int, by_factors: bool) -> None:
        self.signal: Signal = spec.signal
        self.mapping = spec.mapping
        self.relate = spec.relate
        self.padding = spec.padding
        self.consistent = spec.consistent
        self.over_batch = spec.over_batch
        self.distance = distance
        self.heads = heads
        self.by_factors = by_factors

    def compare(
        self,
        student: Captured,
        target: Target,
        aligner: Aligner | None,
        groups: Sequence[Group],
        together: bool,
        recall: Callable[[Tensor, Tensor, Tensor], SumCount] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Sum and count of the distance over the layers in `groups`, and the target's values.

        Token-by-token maps larger than `MAP_ELEMENTS` are compared a few examples or heads at a time and computed again
        in the backward pass, so that only one part of them is ever in memory; then there are no values to give back.
        `recall` takes the distance's place where it remembers.
        """
        if not self.signal.maps:
            s, t, mask = self._meet(student, target, aligner, groups, together)
            return *(recall or self.distance)(s, t, mask), t
        (group,) = groups
        layers = group.student[0], group.teacher[0]
        parts = self._parts(student, target, *layers)
        name = self.signal.map_name()
        maps = {(layer, name) for layer in layers}
        at_hand = len(parts) == 1 and maps & (student.shared | target.captured.shared)
        if self.by_factors and not at_hand:
            return *self._compare_products(student, target, *layers), None
        if len(parts) == 1:
            s, t, mask = self._meet(student, target, aligner, groups, together)
            return *self.distance(s, t, mask), t
        distance, cut = self.distance, self.signal.relation_heads

        def compare(q: Tensor, k: Tensor, v: Tensor, rows: slice, heads: slice) -> tuple[Tensor, Tensor]:
            record = _with(student, layers[0], q, k, v).attention[layers[0]].part(rows, heads, cut)
            part = Captured(student.mask[rows], attention={layers[0]: record})
            there = target.part(rows, heads, layers[1], cut)
            return distance(*self._meet(part, there, aligner, groups, together))

        record = student.attention[layers[0]]
        vectors = record.query, record.key, record.value
        sums = [checkpoint(compare, *vectors, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        amounts, counts = zip(*sums, strict=True)
        return torch.stack(amounts).sum(), torch.stack(counts).sum(), None

    def _compare_products(
        self, student: Captured, target: Target, layer: int, target_layer: int
    ) -> tuple[Tensor, Tensor]:
        """Sum and count of the squared error between two maps that are products, read as their factors."""
        of_student = self.signal.product(student.attention[layer])
        left, right, scale = self.signal.product(target.captured.attention[target_layer])
        if target.partner:
            left, right = left.flip(0), right.flip(0)
        tokens = target.places.tokens
        amount = squared_error(of_student, Product(left, right, scale), tokens)
        return amount, self._maps * tokens.sum(1).square().sum()

    @property
    def _maps(self) -> int:
        """Maps of one layer and example."""
        return self.signal.relation_heads or self.heads

    def _parts(self, student: Captured, target: Target, layer: int, target_layer: int) -> list[tuple[slice, slice]]:
        """Examples and heads that are compared at a time."""
        size, tokens = student.mask.shape
        whole = slice(None)
        if size * self._maps * tokens**2 <= MAP_ELEMENTS:
            return [(slice(0, size), whole)]
        rows = max(PART_ELEMENTS // (self._maps * tokens**2), 1)
        records = student.attention[layer], target.captured.attention[target_layer]
        heads = [whole]
        if rows == 1 and (self.signal.relation_heads or all(record.separable for record in records)):
            some = max(PART_ELEMENTS // tokens**2, 1)
            heads = [slice(start, start + some) for start in range(0, self._maps, some)]
        return [(slice(i, min(i + rows, size)), some) for i in range(0, size, rows) for some in heads]

    def _meet(
        self,
        student: Captured,
        target: Target,
        aligner: Aligner | None,
        groups: Sequence[Group],
        together: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Both sides of the layers in `groups` in one space, and the mask of what may be compared."""
        met = [self._meet_group(student, target, aligner, group) for group in groups]
        relate = self.relate
        if relate is None:
            if self.over_batch and together:
                s, t, mask = (gather_rows(values) for values in met[0])
                return s, t, mask
            return met[0]
        if relate.over == "layers":
            s, t = (torch.stack([values[i] for values in met], -2) for i in (0, 1))
            mask = torch.stack([mask.expand(s.shape[:-2]) for mask in (m[2].squeeze(-1) for m in met)], -1)
        else:
            s, t, mask = met[0]
            mask = mask.squeeze(-1).expand(s.shape[:-1])
            if self.over_batch and together:
                s, t, mask = gather_rows(s), gather_rows(t), gather_rows(mask)
        (s, allowed), (t, _) = relate(s, mask), relate(t, mask)
        return s, t, allowed

    def _meet_group(
        self, student: Captured, target: Target, aligner: Aligner | None, group: Group
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read both sides of a group, bring them into one space, join or mix them, and intersect their masks."""
        how = (self.padding, self.distance.reads)
        own = target.own or target.places
        own = own.flip() if target.partner else own
        read_s = [self.signal.read(student, layer, target.places, *how) for layer in group.student]
        read_t = [self.signal.read(target.captured, layer, own, *how) for layer in group.teacher]
        if target.partner:
            read_t = [(values.flip(0), mask.flip(0)) for values, mask in read_t]
        mask = _all([mask for _, mask in (*read_s, *read_t)])
        joined = group.meet == "concatenated"
        s, t = ([torch.cat([v for v, _ in side], -1)] if joined else [v for v, _ in side] for side in (read_s, read_t))
        t = [values.detach() for values in t]
        if aligner is not None:
            s = [aligner.of_student(values, k) for values, k in zip(s, group.student, strict=False)]
        if self.consistent:
            if target.aligner is not None:
                t = [target.aligner.of_student(v, k).detach() for v, k in zip(t, group.teacher, strict=False)]
        elif aligner is not None:
            t = [aligner.of_teacher(values, k) for values, k in zip(t, group.teacher, strict=False)]
        assert len(s) == 1
        if group.meet == "fused":
            return s[0], self.mapping.fuse(s[0], torch.stack(t)), mask  # type: ignore[union-attr]
        assert len(t) == 1
        return s[0], t[0], mask


def _all(masks: list[Tensor]) -> Tensor:
    """What every mask allows; they may differ in the axes that broadcast."""
    found = masks[0]
    for mask in masks[1:]:
        found = found & mask
    return found


def _with(captured: Captured, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Captured:
    """The same with these vectors at a layer: checkpoint sees gradients through a function's arguments only."""
    record = replace(captured.attention[layer], query=query, key=key, value=value)
    return Captured(captured.mask, attention={layer: record})

"""A bound objective: a term that knows the shapes of student and teacher, owns its state, and computes its value."""

import copy
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerstill.errors import ObjectiveError, UserError
from layerstill.knowledge.alignment import Aligner
from layerstill.knowledge.capture import Captured, CapturePlan, MapName
from layerstill.knowledge.counting import Places, Reach
from layerstill.knowledge.distances import Distance
from layerstill.knowledge.gathering import mean_of_processes
from layerstill.knowledge.mappings import Group, MappingState, layer_name
from layerstill.knowledge.meeting import Meeting, Target
from layerstill.knowledge.objective import Objective
from layerstill.knowledge.precision import wide
from layerstill.knowledge.signals import Signal
from layerstill.knowledge.word_logits import Rows
from layerstill.randomness import generator

if TYPE_CHECKING:  # heads know distances; here they are only asked
    from layerstill.heads.head import Head

CHECKED_BATCHES = 2
"""In so many batches the words are checked; a wrong count may fit one of them by chance."""


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
    reaches: tuple[Reach, ...] = ()
    """How far the attention of each layer reaches, first to last; empty where it reaches everywhere."""

    def reach(self, layer: int) -> Reach:
        """Of the attention of layer `layer`, counted from 1."""
        return self.reaches[layer - 1] if self.reaches and layer else Reach()


@dataclass(frozen=True)
class Term:
    """Value of an objective on a batch, before its weight."""

    value: Tensor
    spread: Tensor | None = None
    """Variance of the teacher-side vectors over the batch when their map is trained: near 0 it has collapsed."""


class BoundObjective(nn.Module):
    """An objective bound to the shapes of a student and a teacher, with its maps and what its mapping remembers.

    `teacher` is None when the recipe has none. `head` is what both models are asked for. Its maps are made by `build`.
    """

    def __init__(
        self, name: str, spec: Objective, student: ModelShape, teacher: ModelShape | None, head: "Head", seed: int
    ) -> None:
        super().__init__()
        self.name = name
        self.spec = spec
        self.student = student
        self.signal: Signal = spec.signal
        self.head = head
        self.seed = seed
        self.distance: Distance | None = spec.distance
        if self.signal.of_head and self.distance is not None:
            self.distance = head.distance(self.distance)
        self.source = student if spec.consistent else teacher
        self.aligner: Aligner | None = None
        self.to_check = CHECKED_BATCHES
        """In how many more batches what the words say they count is compared with what the distance counts."""
        self._per_unit: float | None = None
        if self.source is None and not self.signal.gold:
            raise UserError(
                f"objective {name!r} needs a teacher, and there is none; `finetune` is the recipe without one"
            )
        self.student_layers, self.target_layers = self._layers()
        self.groups(0, 0)  # refuses what cannot meet
        self._refuse_unequal_heads()
        self._refuse_blind_tokens()
        self._refuse_other_words()
        self.meeting: Meeting | None = None
        if self.distance is not None:
            self.meeting = Meeting(spec, self.distance, student.heads, self._compares_products())
        self.mapping_state: MappingState | None = None
        if spec.mapping is not None and self.source is not None:
            self.mapping_state = spec.mapping.state(student.layers, self.source.layers)

    def _layers(self) -> tuple[list[int], list[int]]:
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
        for side, named, shape in zip(("student", "teacher"), layers, (self.student, self.source), strict=True):
            if beyond := [k for k in named if not 0 <= k <= shape.layers]:
                raise UserError(
                    f"objective {self.name!r}: its mapping names {side} layer {beyond[0]}, but the {side} has "
                    f"{shape.layers} layers"
                )
        return layers

    def _refuse_unequal_heads(self) -> None:
        heads = self.signal.relation_heads
        common = math.gcd(self.student.inner, self.source.inner if self.source is not None else 0)
        fits = [n for n in range(1, common + 1) if common % n == 0]
        path = quote(f"stages.N.objectives.{self.name}.signal")
        for side, shape in (("student", self.student), ("teacher", self.source)):
            if heads is not None and shape is not None and shape.inner % heads:
                raise UserError(
                    f"objective {self.name!r}: {heads} relation heads do not divide the {side}'s width {shape.inner}; "
                    f"set {path}.relation.heads, N being its stage, to one of {', '.join(map(str, fits))}"
                )
        own_heads = self.signal.maps and heads is None
        if own_heads and self.source is not None and self.student.heads != self.source.heads:
            theirs = self.source.heads
            as_many = f"set student.attention_heads to {theirs}"
            if self.student.inner % theirs:
                as_many += f" and student.hidden_size to a multiple of {theirs}"
            free = {"relation": {"of": "Q-K", "heads": max(n for n in fits if n <= theirs)}}
            raise UserError(
                f"objective {self.name!r}: the student has {self.student.heads} attention heads and the teacher "
                f"{theirs}, so their maps cannot be compared; {as_many}, or compare queries with keys in other heads: "
                f"set {path} to {json.dumps(free)}, N being its stage"
            )

    def _refuse_blind_tokens(self) -> None:
        if not self.student.causal:
            return
        if why := self.signal.blind_in_causal_models():
            raise UserError(f"objective {self.name!r}: {why}")
        if self.signal.gold and self.spec.mixes and not self.head.per_token:
            raise UserError(
                f"objective {self.name!r}: a causal model answers at an example's last token, before the end of a "
                "longer partner, so the partner's label is not a target under mixup; set view: clean there"
            )

    def _refuse_other_words(self) -> None:
        """UserError for what hidden words, and logits over a vocabulary, are not for."""
        hides = self.spec.view is not None and self.spec.view.hides
        if hides and not self.head.hides:
            raise UserError(
                f"objective {self.name!r}: view masked hides words of running text (--task text) from an encoder; "
                "set view: clean here"
            )
        if self.signal.everywhere and not self.head.speaks:
            raise UserError(f"objective {self.name!r}: token_logits are of a language model (--task text); use logits")
        if not self.over_words:
            return
        if self.spec.mixes or self.spec.consistent:
            what = "view mixup" if self.spec.mixes else "a target other than the teacher"
            raise UserError(
                f"objective {self.name!r}: {what} is not for the logits of a language model; compare hidden states so"
            )
        if self.signal.gold and self.head.hides and not hides:
            raise UserError(
                f"objective {self.name!r} asks for hidden words, and its view hides none; set view: masked in its stage"
            )

    @property
    def over_words(self) -> bool:
        """Whether it is about logits over a vocabulary, which are compared by `against_words`."""
        return self.head.speaks and (self.signal.gold or self.signal.of_head)

    def asked(self, places: Places) -> Tensor | None:
        """Where of a batch, `(B, N)`, it needs the words of both models; None if it needs none."""
        if not self.over_words:
            return None
        return places.tokens if self.signal.everywhere else places.positions

    def _compares_products(self) -> bool:
        """Whether the squared error is asked for between maps that are products among all real tokens."""
        if self.distance is None or not self.distance.squares or self.spec.padding == "included":
            return False
        return self.source is not None and self.signal.is_product(self.student.sees_all and self.source.sees_all)

    @property
    def by_factors(self) -> bool:
        """Whether no token-by-token map is made where it is compared."""
        return self.meeting is not None and self.meeting.by_factors

    @property
    def student_plan(self) -> CapturePlan:
        """What the student must give away on this objective's view."""
        return self.signal.plan(self.student_layers)

    @property
    def target_plan(self) -> CapturePlan:
        """What the target must give away; empty for labels."""
        return CapturePlan() if self.signal.gold else self.signal.plan(self.target_layers)

    def build(self) -> "BoundObjective":
        """Make the maps of this objective, if it has its own; returns itself."""
        own = self.spec.alignment.borrows is None and self.signal.vectors
        # Relations are numbers between a model's own vectors, which may be as wide as they are.
        if not own or (self.spec.relate is not None and not self.spec.alignment.maps_anything):
            return self
        assert self.source is not None
        layers = (self.student_layers, self.target_layers)
        groups = self.groups(0, 0)
        joined = [(len(g.student), len(g.teacher)) if g.meet == "concatenated" else (1, 1) for g in groups]
        widths = self.student.width * joined[0][0], self.source.width * joined[0][1]
        try:
            if len(set(joined)) > 1:
                raise UserError(
                    f"its mapping joins {sum(joined[0])} layers in one place and {sum(joined[-1])} in another, "
                    "which one map cannot take"
                )
            self.aligner = self.spec.alignment.build(*widths, layers)
        except UserError as error:
            raise UserError(f"objective {self.name!r}: {error}") from None
        return self

    def groups(self, epoch: int, step: int) -> list[Group]:
        """The groups of layers in force; the same on every process and after a resume."""
        mapping = self.spec.mapping
        if mapping is None or self.source is None:
            return [Group((0,), (0,))]
        rng = generator(self.seed, "mapping", self.name, mapping.period(epoch, step))
        groups: list[Group] = mapping.groups(self.student.layers, self.source.layers, rng)
        if wrong := [group for group in groups if not group.fits]:
            raise UserError(f"objective {self.name!r}: its mapping gives {wrong[0]!r}; see Group for what may meet")
        if self.signal.maps and (joined := [group for group in groups if group.meet != "each"]):
            raise UserError(
                f"objective {self.name!r}: its mapping has layers {joined[0].meet}, and token-by-token maps meet layer "
                "by layer; use a mapping of pairs, or hidden_states"
            )
        return groups

    def describe_pairs(self) -> list[str]:
        """`layer 1 <- layer 4` for each group; for a random mapping the candidates."""
        if self.spec.mapping is None:
            return []
        if self.spec.mapping.redraws:
            names = ", ".join(layer_name(k) for k in self.target_layers)
            return [f"{layer_name(k)} <- drawn from {names}, sorted" for k in self.student_layers]
        return [line for group in self.groups(0, 0) for line in str(group).split("\n")]

    def compared(self, epoch: int, step: int) -> list[list[Group]]:
        """The groups in force, those of one comparison together: all of them where layers are related."""
        groups = self.groups(epoch, step)
        over_layers = self.spec.relate is not None and self.spec.relate.over == "layers"
        return [groups] if over_layers else [[group] for group in groups]

    def comparisons(self, epoch: int, step: int) -> int:
        """How many `compared` gives."""
        if self.spec.mapping is None or (self.spec.relate is not None and self.spec.relate.over == "layers"):
            return 1
        return len(self.groups(epoch, step))

    def count(self, places: Sequence[Places], epoch: int, step: int) -> Tensor:
        """The units of every comparison with every target, `(targets, comparisons)` float64, on a batch.

        `places` are those of the targets. An objective that takes the whole step at once has 1 of each.
        """
        compared = self.compared(epoch, step)
        if self.spec.over_batch:
            return torch.ones(len(places), len(compared), dtype=torch.float64, device=places[0].tokens.device)
        rows = []
        for place in places:
            of_reaches: dict[object, Tensor] = {}
            row = []
            for groups in compared:
                reaches = self._reaches(groups[0])
                if reaches not in of_reaches:
                    of_reaches[reaches] = self._count(place, reaches)
                row.append(of_reaches[reaches])
            rows.append(torch.stack(row))
        return torch.stack(rows)

    def _reaches(self, group: Group) -> tuple[Reach, Reach]:
        source = self.source or self.student
        if not self.signal.inside:
            return Reach(), Reach()
        return self.student.reach(group.student[0]), source.reach(group.teacher[0])

    def _count(self, places: Places, reaches: tuple[Reach, Reach]) -> Tensor:
        assert self.distance is not None
        relate = self.spec.relate
        if relate is not None and relate.over == "tokens":
            return relate.count(places.tokens.sum(1), self.distance.counts)
        return self.signal.count(self.distance.counts, places, reaches, self.spec.padding, self.distance.reads)

    def against_labels(
        self, logits: Tensor, targets: Sequence[tuple[float, Tensor, Tensor | None]], scale: Tensor
    ) -> Term:
        """The head's loss on logits against labels, each with a share (two under mixup).

        With the labels come weights `(B,)` of the examples or None; an error is multiplied by its example's, and what
        the sum is divided by does not depend on them. `scale` `(targets, 1)` as in `against`. A label that is not there
        counts nowhere.
        """
        logits = wide(logits)
        total = logits.new_zeros(())
        for (share, labels, weights), part in zip(targets, scale, strict=True):
            error = self.head.errors(logits, labels)
            if weights is not None:
                error = error * weights.to(error.dtype).view(-1, *(1,) * (error.ndim - 1))
            total = total + share * error.sum() / self.head.labelled(labels).sum().clamp(min=1) * part.squeeze()
        return Term(total)

    def against_words(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Sum and count of the term over some places of a language model."""
        if self.signal.gold:
            assert rows.labels is not None
            return self.head.errors(rows.student, rows.labels).sum(), self.head.labelled(rows.labels).sum()
        assert self.distance is not None
        assert rows.teacher is not None
        # The same tokenizer; a vocabulary that was padded has columns in the end that are no token.
        width = min(rows.student.shape[-1], rows.teacher.shape[-1])
        counted = rows.real if self.signal.everywhere else rows.asked
        return self.distance(rows.student[:, :width], rows.teacher[:, :width], counted[:, None])

    def of_words(self, amount: Tensor, count: Tensor, scale: Tensor, units: Tensor) -> Term:
        """The term from sum and count over all places; `scale` and `units`, `(1, 1)` each, as in `against`."""
        if self.to_check:
            self._check_count(count, units)
        self.to_check = max(self.to_check - 1, 0)
        return Term((amount / count.clamp(min=1) * scale).squeeze())

    def against(
        self,
        student: Captured,
        targets: Sequence[Target],
        aligner: Aligner | None,
        compared: Sequence[Sequence[Group]],
        scale: Tensor,
        units: Tensor,
        together: bool = False,
    ) -> Term:
        """The term against captured tensors.

        `units` `(targets, comparisons)` are what `count` says of this batch, and `scale` its share of the whole
        optimiser step, so that sums over micro-batches and processes give the mean over all of them: the one place that
        divides.
        `together` says that other processes are at the same step and have rows of it.
        """
        assert self.meeting is not None
        mapping, spread = self.spec.mapping, None
        weighs = mapping is not None and mapping.weighs
        total, costs = scale.new_zeros(()), []
        for t, target in enumerate(targets):
            for g, groups in enumerate(compared):
                amount, count, values = self.meeting.compare(student, target, aligner, groups, together)
                if self.to_check:
                    self._check_count(count, units[t, g])
                share = 1.0 if weighs else target.share * groups[0].weight
                value = share * amount / count.clamp(min=1) * scale[t, g]
                costs.append(value)
                total = total + value
                if aligner is not None and aligner.trains_teacher_side and values is not None and values.ndim == 2:
                    unit_vectors = F.normalize(values.detach().float(), dim=-1)
                    spread = unit_vectors.var(0, unbiased=False).sum() if spread is None else spread
        self.to_check = max(self.to_check - 1, 0)
        if weighs:
            total = self._weighed(torch.stack(costs), together)
        return Term(total / len(compared) if self.spec.layers == "mean" else total, spread)

    def _weighed(self, costs: Tensor, together: bool) -> Tensor:
        """The costs of all groups, with weights that the mapping makes from those of the whole step."""
        assert self.spec.mapping is not None
        whole = costs.detach()
        # An evaluation teaches the mapping nothing, whatever it does to what it is given.
        state = self.mapping_state if self.training else copy.deepcopy(self.mapping_state)
        weights: Tensor = self.spec.mapping.weigh(mean_of_processes(whole) if together else whole, state)
        return (weights * costs).sum()

    def check_counts_anew(self) -> None:
        """Check the counts of the batches that come next."""
        self.to_check, self._per_unit = CHECKED_BATCHES, None

    def _check_count(self, count: Tensor, units: Tensor) -> None:
        """The distance counts equally many for each unit that the words count, in every comparison and batch."""
        counted, said = float(count), float(units)
        if self.spec.over_batch or counted == said == 0:
            return
        each = counted / said if said else float("inf")
        self._per_unit = self._per_unit or each
        if not counted or not said or abs(each - self._per_unit) > 1e-9 * each:
            raise ObjectiveError(
                f"objective {self.name!r}: its words say that a batch has {said:g} units, in which its distance "
                f"counted {counted:g}, and before that {self._per_unit:g} for each; `count` (or `per`) of its signal, "
                "relation or distance is wrong"
            )


def shared_maps(readers: Iterable[BoundObjective], side: Literal["student", "target"]) -> frozenset[MapName]:
    """The maps of one side that are read more than once; an objective that reads twice is among `readers` twice."""
    times: Counter[MapName] = Counter()
    for o in readers:
        if o.signal.maps:
            layers = o.student_layers if side == "student" else o.target_layers
            times.update((k, o.signal.map_name()) for k in layers)
    return frozenset(name for name, n in times.items() if n > 1)

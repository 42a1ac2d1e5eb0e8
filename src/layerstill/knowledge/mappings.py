"""Mappings: which teacher layer teaches which student layer.

Layers are numbered by what they put out: 0 is the embeddings, k the output of layer k, L the last. Attention and
relations of layer k are those computed inside layer k, so the same number names them, and 0 has none.
"""

import random
import re
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from layerstill.errors import ObjectiveError, UserError
from layerstill.schema import Spec


class Pair(NamedTuple):
    """Layer `student` of the student learns from layer `teacher` of the teacher, with a share `weight` of the term."""

    student: int
    teacher: int
    weight: float = 1.0


def layer_name(number: int) -> str:
    """`embeddings` or `layer k`."""
    return "embeddings" if number == 0 else f"layer {number}"


def layer_number(name: str) -> int:
    """The inverse of `layer_name`; ValueError for anything else."""
    if name == "embeddings":
        return 0
    if match := re.fullmatch(r"layer ([1-9][0-9]*)", name):
        return int(match[1])
    raise ValueError(f"{name!r} is not the name of a layer; write 'embeddings' or 'layer 3'")


Meet = Literal["each", "concatenated", "fused"]


class Group(NamedTuple):
    """Layers that meet in one comparison, with a share `weight` of the term.

    `each`: one layer with one layer. `concatenated`: the vectors of all joined, on both sides, which may have different
    numbers of them. `fused`: one student layer with the mapping's mixture of the teacher's.
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    weight: float = 1.0
    meet: Meet = "each"

    @property
    def fits(self) -> bool:
        """Whether so many layers can meet like this."""
        student, teacher = len(self.student), len(self.teacher)
        if self.meet == "concatenated":
            return student > 0 and teacher > 0
        return student == 1 and (teacher > 0 if self.meet == "fused" else teacher == 1)

    def __str__(self) -> str:
        left, right = (", ".join(map(layer_name, side)) for side in (self.student, self.teacher))
        return f"{left} <- {right}" + f" ({self.meet})" * (self.meet != "each")


class MappingState(nn.Module):
    """What a mapping remembers from step to step, in buffers: saved with checkpoints, the same on all processes."""

    def finish_step(self) -> None:
        """Called after every optimiser step."""


class Mapping(Spec):
    """What all mappings share. `S` and `T` are the depths of student and teacher.

    A new one answers `groups`; `candidates` too, if it draws.
    """

    redraws: ClassVar[bool] = False
    """Whether the groups may be others in another period."""
    weighs: ClassVar[bool] = False
    """Whether weights come from the costs of all groups in the whole step (`weigh`), not from the groups."""

    def groups(self, S: int, T: int, rng: random.Random) -> list[Group]:
        """The groups of one period; `rng` is only used by mappings that draw."""
        raise TypeError(f"{type(self).__name__} is not a mapping by itself")

    def candidates(self, S: int, T: int) -> tuple[list[int], list[int]]:
        """All student layers and all teacher layers that `groups` may ever name."""
        groups = self.groups(S, T, random.Random(0))
        return sorted({k for g in groups for k in g.student}), sorted({k for g in groups for k in g.teacher})

    def period(self, epoch: int, step: int) -> int:
        """Number of the drawing in force; a new number means a new drawing."""
        return 0

    def state(self, S: int, T: int) -> MappingState | None:
        """What it remembers, as it is before the first step."""
        return None

    def weigh(self, costs: Tensor, state: MappingState | None) -> Tensor:
        """Weights `(groups,)` from the costs of the groups in the whole step, both without gradient."""
        raise TypeError(f"{type(self).__name__} weighs nothing")

    def fuse(self, student: Tensor, teachers: Tensor) -> Tensor:
        """The mixture `(..., d)` of teacher vectors `(T, ..., d)` that a student's `(..., d)` learns from."""
        raise TypeError(f"{type(self).__name__} fuses nothing")


class PairMapping(Mapping):
    """A mapping of one student layer to one teacher layer each."""

    meet: Literal["each", "concatenated"] = "each"
    """Compare each pair, or all student layers joined with all teacher layers joined (RAIL-KD_c, CKD)."""

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        """The pairs of one period; `rng` is only used by mappings that draw."""
        raise TypeError(f"{type(self).__name__} is not a mapping by itself")

    def groups(self, S: int, T: int, rng: random.Random) -> list[Group]:
        pairs = self.draw_pairs(S, T, rng)
        if self.meet == "concatenated" and pairs:
            return [Group(tuple(p.student for p in pairs), tuple(p.teacher for p in pairs), meet="concatenated")]
        return [Group((p.student,), (p.teacher,), p.weight) for p in pairs]


def _ratio(S: int, T: int) -> int:
    if T % S:
        fits = [d for d in range(1, T + 1) if T % d == 0]
        raise UserError(
            f"a uniform mapping needs the student's depth to divide the teacher's: {S} does not divide {T}; "
            f"use a student of {', '.join(map(str, fits))} layers, `uniform: {{uneven: spread}}`, or explicit pairs"
        )
    return T // S


def spread(S: int, T: int) -> list[int]:
    """`S` of the layers 1..`T` at even distances, the last among them: i T / S rounded, halves up; [2, 3, 5, 6] for 4
    of 6. Where S divides T, every (T/S)-th."""
    return [(2 * i * T + S) // (2 * S) for i in range(1, S + 1)]


class Uniform(PairMapping):
    """Student layer i learns from teacher layer i*T/S (TinyBERT, How to Distill, CR-ILD's U-ILD, PKD-skip)."""

    embeddings: bool = False
    """Pair the embeddings too."""
    final_layer: Literal["included", "excluded"] = "included"
    """PKD leaves the last pair out."""
    uneven: Literal["refuse", "segments", "spread"] = "refuse"
    """If S does not divide T: refuse, take the last layer of each of S near-equal segments, or `spread`: i*T/S rounded,
    as initialisation spread does."""

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        if self.uneven == "segments":
            longer = T % S
            ends = [i * (T // S) + min(i, longer) for i in range(1, S + 1)]
        elif self.uneven == "spread" and S <= T:
            ends = spread(S, T)
        else:
            ends = [i * _ratio(S, T) for i in range(1, S + 1)]
        pairs = [Pair(0, 0)] * self.embeddings + [Pair(i, t) for i, t in enumerate(ends, 1)]
        return pairs[:-1] if self.final_layer == "excluded" else pairs


class Last(PairMapping):
    """The last `layers` student layers learn from the last `layers` teacher layers (L-ILD, MiniLM, PKD-last)."""

    layers: int | Literal["all"] = Field(default=1, union_mode="left_to_right")
    """How many; `all` is the student's depth."""
    final_layer: Literal["included", "excluded"] = "included"
    """PKD leaves the last pair out."""

    @field_validator("layers")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1")
        return value

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        n = S if self.layers == "all" else self.layers
        if n > min(S, T):
            raise UserError(f"mapping last: {n} layers asked for, but the student has {S} and the teacher {T}")
        pairs = [Pair(S - n + i, T - n + i) for i in range(1, n + 1)]
        return pairs[:-1] if self.final_layer == "excluded" else pairs


class First(PairMapping):
    """Student layer i learns from teacher layer i (a control)."""

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        if S > T:
            raise UserError(f"mapping first: the student has {S} layers, more than the teacher's {T}")
        return [Pair(i, i) for i in range(1, S + 1)]


class Reversed(PairMapping):
    """Uniform with the teacher's order reversed: the first student layer learns from the last (arXiv 2502.04499)."""

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        ratio = _ratio(S, T)
        return [Pair(i, (S + 1 - i) * ratio) for i in range(1, S + 1)]


class Explicit(PairMapping):
    """Pairs written out."""

    pairs: dict[str, str] = Field(min_length=1)
    """Student layer: the teacher layer it learns from, for example `{layer 1: layer 4, layer 3: layer 12}`."""

    @field_validator("pairs")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for student, teacher in value.items():
            layer_number(student)
            layer_number(teacher)
        return value

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        pairs = [Pair(layer_number(s), layer_number(t)) for s, t in self.pairs.items()]
        for pair in pairs:
            for side, layer, depth in (("student", pair.student, S), ("teacher", pair.teacher, T)):
                if layer > depth:
                    raise UserError(
                        f"explicit mapping names {side} layer {layer}, but the {side} has {depth} layers; "
                        f"use layer 1 to layer {depth}"
                    )
        return pairs


class Random(PairMapping):
    """RAIL-KD (arXiv 2109.10164): draw teacher layers without replacement, sort them, pair them in order."""

    redraws: ClassVar[bool] = True
    redraw: Literal["epoch", "step", "never"] = "epoch"
    """When a new drawing is made; the paper redraws every epoch."""
    final_layer: Literal["included", "excluded"] = "excluded"
    """Whether the last layer of each model takes part (excluded: student layers 1..S-1, candidates 1..T-1)."""

    def candidates(self, S: int, T: int) -> tuple[list[int], list[int]]:
        last = self.final_layer == "included"
        student, teacher = list(range(1, S + last)), list(range(1, T + last))
        if not student:
            raise UserError(
                f"random mapping without the final layer leaves no layer in a student of {S}; "
                "use at least 2 student layers or final_layer: included"
            )
        if len(student) > len(teacher):
            raise UserError(f"random mapping: {len(student)} student layers but only {len(teacher)} candidates")
        return student, teacher

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        student, teacher = self.candidates(S, T)
        return [Pair(i, j) for i, j in zip(student, sorted(rng.sample(teacher, len(student))), strict=True)]

    def period(self, epoch: int, step: int) -> int:
        return {"epoch": epoch, "step": step, "never": 0}[self.redraw]


class All(Mapping):
    """All layers of the student, joined into one vector, with all of the teacher's (CoDIR, arXiv 2009.14167).

    The vectors have different widths, so an alignment must map both sides into one space.
    """

    embeddings: bool = True
    """Whether the embeddings belong to them, as in How to Distill your BERT."""

    def groups(self, S: int, T: int, rng: random.Random) -> list[Group]:
        first = 0 if self.embeddings else 1
        return [Group(tuple(range(first, S + 1)), tuple(range(first, T + 1)), meet="concatenated")]


class Attended(Mapping):
    """ALP-KD (arXiv 2012.14022): every student layer learns from a mixture of all teacher layers.

    The mixture is alpha_j = softmax_j <s, t_j> for every vector; it is made after alignment.
    """

    embeddings: bool = False
    """Let the embeddings of both take part."""
    detached: bool = False
    """Hold alpha constant; otherwise the student's gradient runs through it, as in released code."""

    def groups(self, S: int, T: int, rng: random.Random) -> list[Group]:
        first = 0 if self.embeddings else 1
        return [Group((i,), tuple(range(first, T + 1)), meet="fused") for i in range(first, S + 1)]

    def fuse(self, student: Tensor, teachers: Tensor) -> Tensor:
        said = student.detach() if self.detached else student
        alpha = (said * teachers).sum(-1, keepdim=True).softmax(0)
        return (alpha * teachers).sum(0)


class OptimalTransport(Mapping):
    """BERT-EMD (arXiv 2010.06133): all student layers with all teacher layers, weighted by an optimal transport.

    The plan F moves the student layers' masses to the teacher layers' at least cost sum F_ij D_ij, where D_ij is the
    term between layer i and layer j over the whole step. F is held constant in the gradient. After each step a layer's
    mass becomes (1/c_i) / sum_k (1/c_k), with c_i its transport cost per mass.
    """

    weighs: ClassVar[bool] = True
    masses: Literal["learnt", "uniform"] = "learnt"
    """`learnt`: updated after each step by the cost attention above; `uniform`: 1/S and 1/T throughout."""

    def groups(self, S: int, T: int, rng: random.Random) -> list[Group]:
        return [Group((i,), (j,)) for i in range(1, S + 1) for j in range(1, T + 1)]

    def state(self, S: int, T: int) -> "Masses":
        return Masses(S, T, self.masses == "learnt")

    def weigh(self, costs: Tensor, state: MappingState | None) -> Tensor:
        assert isinstance(state, Masses)
        return state.transport(costs)


class Masses(MappingState):
    """The masses of student layers `(S,)` and teacher layers `(T,)`, each summing to 1."""

    def __init__(self, S: int, T: int, learnt: bool) -> None:
        super().__init__()
        self.learnt = learnt
        self.student = nn.Buffer(torch.full((S,), 1 / S, dtype=torch.float64))
        self.teacher = nn.Buffer(torch.full((T,), 1 / T, dtype=torch.float64))
        self._next: tuple[Tensor, Tensor] | None = None

    def transport(self, costs: Tensor) -> Tensor:
        """The plan `(S * T,)` for costs of that shape; the masses that follow from it are kept for `finish_step`."""
        from scipy.optimize import linprog

        S, T = len(self.student), len(self.teacher)
        cost = costs.double().cpu().view(S, T)
        masses = torch.cat([self.student, self.teacher]).cpu()
        pairs = torch.arange(S * T).view(S, T)
        sums = torch.zeros(S + T, S * T, dtype=torch.float64)
        for i in range(S):
            sums[i, pairs[i]] = 1
        for j in range(T):
            sums[S + j, pairs[:, j]] = 1
        # The last sum follows from the others; kept, it could make the masses contradict each other in the last digit.
        found = linprog(cost.flatten().numpy(), A_eq=sums[:-1].numpy(), b_eq=masses[:-1].numpy(), method="highs-ds")
        if found.x is None:
            raise ObjectiveError(f"optimal transport between {S} and {T} layers was not found: {found.message}")
        plan = torch.as_tensor(found.x).view(S, T)
        moved = plan * cost
        self._next = tuple(  # type: ignore[assignment]  # two of them
            _attention_of(moved.sum(axis), held.cpu()) for axis, held in ((1, self.student), (0, self.teacher))
        )
        return plan.flatten().to(costs)

    def finish_step(self) -> None:
        if self.learnt and self._next is not None:
            for held, new in zip((self.student, self.teacher), self._next, strict=True):
                held.copy_(new)
        self._next = None


def _attention_of(cost: Tensor, mass: Tensor) -> Tensor:
    # A layer without mass, or without cost, would divide by 0; it keeps a share that is tiny or large, but finite.
    each = (cost / mass.clamp(min=1e-12)).clamp(min=1e-12)
    return (1 / each) / (1 / each).sum()


MAPPINGS: dict[str, type[Mapping]] = {
    "uniform": Uniform,
    "last": Last,
    "first": First,
    "reversed": Reversed,
    "explicit": Explicit,
    "random": Random,
    "all": All,
    "attended": Attended,
    "optimal_transport": OptimalTransport,
}

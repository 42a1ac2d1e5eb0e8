"""The distillation module: student and objectives as one trainable thing with one forward pass.

It is what gets optimised, wrapped (DDP, FSDP) and saved together; the teacher is only looked at. It works in any
training loop:

    module = DistillationModule(student, teacher, stage, seed=0, head=Classes())
    module.clock = Clock(epochs=3, steps=3 * len(batches))
    loss = module(**batch)["loss"]
    ...                              # backward, optimiser step
    module.finish_step(epoch=0)      # schedules, random mappings, mixup and moving averages go on
"""

import copy
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from layerstill.errors import ObjectiveError, UserError
from layerstill.families import shape_of
from layerstill.heads import Head
from layerstill.knowledge.alignment import Aligner
from layerstill.knowledge.bound_objective import BoundObjective, Term, shared_maps
from layerstill.knowledge.capture import Captured, CapturePlan
from layerstill.knowledge.mappings import layer_name
from layerstill.knowledge.meeting import Target
from layerstill.knowledge.memory import Examples
from layerstill.knowledge.objective import Whom
from layerstill.knowledge.views import Mixing, View
from layerstill.randomness import generator
from layerstill.recipe import Stage
from layerstill.training.clock import Clock, Stopwatch
from layerstill.training.counted_passes import CountedPasses, Flops
from layerstill.training.dropout import CheapDropout
from layerstill.training.gold import Gold
from layerstill.training.memories import give_memories, numbered
from layerstill.training.ready_logits import ReadyLogits
from layerstill.training.sides import Side, Sides, refuse_token_terms, sides_of
from layerstill.training.teacher_source import TeacherSource
from layerstill.training.units import Units
from layerstill.training.word_terms import over_words, places_of_words


def bind_objectives(
    stage: Stage, student: PretrainedConfig, teacher: PretrainedConfig | None, head: Head, seed: int
) -> list[BoundObjective]:
    """A stage's objectives, each with its view, bound to two architectures; UserError for what does not fit."""
    shapes = shape_of(student), None if teacher is None else shape_of(teacher)
    return [BoundObjective(name, spec, *shapes, head, seed) for name, spec in stage.viewed().items()]


class DistillationModule(nn.Module):
    """Student and the objectives of one stage, with their maps and whatever else they own.

    Args:
        student: the model to train; its own module, so it saves and loads without layerstill.
        teacher: the model to learn from, or None. Kept in evaluation mode, without gradients, outside the state.
        stage: the objectives.
        seed: of everything that is drawn.
        head: what both models are asked for.
        teacher_tokens: the teacher's number of each of the student's tokens, if the student has fewer; it then says
            only those words, too.
        ready: what teachers said of the examples before, in place of the logits of `teacher`, or of a teacher.
        examples: the training examples, for objectives that remember each of them.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        stage: Stage,
        seed: int,
        head: Head,
        teacher_tokens: Sequence[int] | None = None,
        ready: ReadyLogits | None = None,
        examples: Examples | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.stage = stage
        self.seed = seed
        self.head = head
        self.clock = Clock()
        self._flops = Flops()
        self.source = TeacherSource(teacher, ready, teacher_tokens, self._flops)
        """Where the teacher's tensors come from; no part of this module's state."""
        teacher_config = teacher.config if teacher is not None else None
        if ready is not None and teacher is None:
            teacher_config = student.config  # of which no more is read than that the logits are those of the same head
        bound = bind_objectives(stage, student.config, teacher_config, head, seed)
        self.objectives = nn.ModuleList([objective.build() for objective in bound])
        self._refuse_maps_of_other_layers()
        give_memories(bound, examples)
        self._units = Units(self.terms_of_stage, head)
        self._passes = CountedPasses(student, self._flops)
        # Walking through all modules at every step would take as long as some of their layers.
        able = (m for m in student.modules() if getattr(m, "gradient_checkpointing", None) is not None)
        self._able_to_compute_again = tuple(able)
        decays = {o.spec.target.average for o in self.terms_of_stage if o.spec.target.average is not None}
        if len(decays) > 1:
            raise ObjectiveError(
                f"one stage keeps one moving average, but its objectives ask for decays {sorted(decays)}"
            )
        self.decay = next(iter(decays), None)
        self.average: nn.ModuleDict | None = None
        self._passes_of_average: CountedPasses | None = None
        if self.decay is not None:
            self.average = copy.deepcopy(nn.ModuleDict({"student": student, "objectives": self.objectives}))
            self.average.eval().requires_grad_(False)
            for kept in self.average["objectives"]:  # type: ignore[attr-defined]  # a ModuleList
                kept.memory = None  # of which there is one
            averaged: Any = self.average["student"]
            self._passes_of_average = CountedPasses(averaged, self._flops)

    def _refuse_maps_of_other_layers(self) -> None:
        for o in self.terms_of_stage:
            aligner = self._aligner_of(o)
            served = None if aligner is None else aligner.serves()
            if served is not None and not set(o.student_layers) <= served:
                raise UserError(
                    f"objective {o.name!r} needs maps for {', '.join(map(layer_name, o.student_layers))}, but those it "
                    f"uses serve {', '.join(map(layer_name, sorted(served)))}; set maps: shared there"
                )

    @property
    def terms_of_stage(self) -> list[BoundObjective]:
        """The objectives, typed as what they are."""
        return list(self.objectives)  # type: ignore[arg-type]  # a ModuleList says no more than that they are modules

    @property
    def teacher(self) -> PreTrainedModel | None:
        """The teacher, which is not part of this module's state."""
        return self.source.model

    @property
    def flops(self) -> float:
        """Floating-point operations so far, of training passes and the teacher's."""
        return self._flops.total

    @flops.setter
    def flops(self, total: float) -> None:
        self._flops.total = total

    def train(self, mode: bool = True) -> "DistillationModule":
        """Training mode for student and objectives; a moving average stays in evaluation mode.

        Nothing is done where all of them are in this mode already, because a Trainer asks for it at every step; a layer
        that was put in another mode by itself then stays in it.
        """
        if all(module.training == mode for module in (self, self.student, self.objectives, *self.objectives)):
            return self
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def owned(self) -> dict[str, Tensor]:
        """What the objectives own, by `objective.part`, as a finished run keeps it; checkpoints hold all of it."""
        return {f"{o.name}.{key}": value for o in self.terms_of_stage for key, value in o.owned().items()}

    def forward(self, units: Tensor | None = None, **batch: Any) -> dict[str, Any]:
        """In training mode the stage's `loss`, its `terms` by name and the student's `logits`; else only `logits`.

        `batch` has `input_ids` and `attention_mask` `(B, N)`, perhaps `token_type_ids`, and `labels` as the head has
        them, perhaps with `weights` `(B,)` that the loss on each example's labels is multiplied by; with a teacher
        cache also `content`, the hashes under which it knows the examples, and with objectives that remember them
        `id`, their numbers; with `idle`, its rows are another process's and count nowhere. A teacher with another
        tokenizer reads `teacher_input_ids` and so on.
        A batch may bring its `own_units`, the row of `count_units`, which then is not counted again.
        `units` are the totals of `count_units` over the whole optimiser step (divided by the number of processes,
        whose gradients are averaged); without them the batch is the whole step.
        """
        if torch.compiler.is_compiling():
            _refuse_compiling()
        if not self.training:
            mask = batch["attention_mask"]
            return {"logits": self.student(**self._passes.recorder.inputs(batch), attention_mask=mask).logits}
        terms, logits = self.terms(batch, units)
        clock = self.clock
        loss = sum(
            o.spec.weight.at(clock.epoch, clock.epochs, clock.step, clock.steps) * terms[o.name].value
            for o in self.terms_of_stage
        )
        return {"loss": loss, "terms": terms, "logits": logits}

    def terms(self, batch: dict[str, Any], units: Tensor | None = None) -> tuple[dict[str, Term], Tensor | None]:
        """Every objective's value on a batch before its weight, and the student's logits on the clean input."""
        again = self._computed_again()
        if self.training and torch.is_grad_enabled():
            _refuse_reentrant(again)
        cheap = self.training and batch["attention_mask"].device.type == "cpu" and not again
        with CheapDropout() if cheap else nullcontext():
            return self._terms(batch, units)

    def _computed_again(self) -> list[nn.Module]:
        """Parts of the student that the backward pass computes again (activation checkpointing)."""
        # By what is set on the module: the property that asks for it has another name in every other release of
        # transformers.
        return [m for m in self._able_to_compute_again if vars(m).get("gradient_checkpointing")]

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        """Compute the student's layers again in the backward pass, as `PreTrainedModel` does; the Trainer calls it."""
        if not self.student.supports_gradient_checkpointing:
            family = self.student.config.model_type
            raise UserError(f"transformers has no activation checkpointing for model family {family!r}; leave it out")
        self.student.activation_checkpointing_enable(**settings)

    def _terms(self, batch: dict[str, Any], units: Tensor | None) -> tuple[dict[str, Term], Tensor | None]:
        sides = sides_of(batch, self.head)
        if sides.apart:
            refuse_token_terms(self.terms_of_stage)
        counted = self._units.of(batch, self.clock)
        scales = self._units.shares(counted, units, torch.float64 if self._is_double() else torch.float32)
        own = self._own_targets(sides.student)
        values: dict[str, Term] = {}
        rows = None
        if any(o.memory is not None for o in self.terms_of_stage):
            rows = numbered(batch, self.head, self.clock.step if self.training else None)
        logits = None
        for view in dict.fromkeys(o.spec.view for o in self.terms_of_stage):
            here = [o for o in self.terms_of_stage if o.spec.view == view]
            mixing = self._draw(view)
            plan = union(o.student_plan for o in here)
            asked = places_of_words(here, sides.student.places)
            student = self._passes.run(plan, sides.student.inputs, sides.student.mask, mixing, asked)
            taught = union(o.target_plan for o in here if not o.spec.consistent)
            teacher = self.source.read(taught, sides, mixing, batch.get("content"), asked)
            # Under mixup a consistency term compares with both partners, so it reads the student's maps twice.
            twice = [o for o in here if o.spec.consistent and mixing is not None]
            student.shared = shared_maps([*here, *twice], "student")
            teacher.shared = shared_maps((o for o in here if not o.spec.consistent), "target")
            logits = student.logits if mixing is None else logits
            # Under autocast products of recorded tensors would be bf16 again: losses are computed in full width.
            with torch.autocast(sides.student.mask.device.type, enabled=False):
                values |= over_words(here, student, teacher, batch, sides.student.places, scales, counted)
                for o in here:
                    if o.over_words:
                        continue
                    if o.signal.gold:
                        assert student.logits is not None
                        gold = Gold.of(batch, sides.student.places, self.head).shares(mixing)
                        values[o.name] = o.against_labels(student.logits, gold, scales[o.name])
                        continue
                    targets = self._targets(o, teacher, own, sides, mixing)
                    compared = o.compared(self.clock.epoch, self.clock.step)
                    share = scales[o.name], counted[o.name]
                    values[o.name] = o.against(
                        student, targets, self._aligner_of(o), compared, *share, self.training, rows
                    )
        return {o.name: values[o.name] for o in self.terms_of_stage}, logits

    def count_units(self, batch: dict[str, Any]) -> Tensor:
        """How many of each objective's units (examples, tokens, labels, ...) a batch holds, for every target and every
        group of layers, in one row (float64)."""
        return self._units.row(batch, self.clock)

    def weight_of(self, batch: dict[str, Any]) -> Tensor:
        """`(objectives,)` float64: how much a batch weighs in each objective's mean over several batches."""
        return self._units.weights(batch, self.clock)

    def finish_step(self, epoch: int | None = None) -> None:
        """To be called after every optimiser step: moves the average, what objectives remember, and the clock."""
        self._move_average()
        for o in self.terms_of_stage:
            if o.mapping_state is not None:
                o.mapping_state.finish_step()
            if o.memory is not None:
                o.memory.finish_step()
        self.clock.step += 1
        if epoch is not None:
            self.clock.epoch = epoch

    @torch.no_grad()
    def _move_average(self) -> None:
        if self.average is None or self.decay is None:
            return
        live = {"student": self.student, "objectives": self.objectives}
        for name, module in live.items():
            for kept, new in zip(self.average[name].parameters(), module.parameters(), strict=True):
                kept.lerp_(new.detach().to(kept), 1 - self.decay)

    def freeze_unreached(self, batch: dict[str, Any]) -> list[str]:
        """Try the objectives on a batch; freeze every parameter that none of them reaches and return their names.

        Raises ObjectiveError for an objective that is zero or not finite, or whose words count wrongly. Leaves the
        random state as it was.
        """
        spent = self.flops
        trainable = {n: p for n, p in self.named_parameters() if p.requires_grad}
        devices = [self.student.device] if self.student.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            self.train()
            terms = self._tried(batch)
            empty = self._taught_nothing(batch)
            for name, term in terms.items():
                value = term.value.item()
                if (value == 0 and name not in empty) or value != value or abs(value) == float("inf"):
                    what = "zero" if value == 0 else f"not finite ({value})"
                    raise ObjectiveError(
                        f"objective {name!r} is {what} on the first batch, so it would teach nothing; "
                        "check its signal, mapping and the two models (`layerstill plan` shows what is captured)"
                    )
            total = torch.stack([term.value for term in terms.values()]).sum()
            gradients = torch.autograd.grad(total, list(trainable.values()), allow_unused=True)
        unreached = [n for n, g in zip(trainable, gradients, strict=True) if g is None]
        for name in unreached:
            trainable[name].requires_grad_(False)
        self.source.time = Stopwatch()
        self.flops = spent
        return unreached

    def _taught_nothing(self, batch: dict[str, Any]) -> set[str]:
        """Objectives to which a batch gives nothing that counts, labels say, which is no fault of theirs."""
        sides = sides_of(batch, self.head)
        empty = {name for name, count in self._units.of(batch, self.clock).items() if not count.any()}
        gold = [o.name for o in self.terms_of_stage if o.signal.gold]
        unweighted = gold and not Gold.of(batch, sides.student.places, self.head).teaches(self.head)
        return empty | set(gold if unweighted else ())

    def _tried(self, batch: dict[str, Any]) -> dict[str, Term]:
        """The terms of a batch, with their counts checked; nothing of it is remembered."""
        memories = {o.name: o.mapping_state for o in self.terms_of_stage}
        for o in self.terms_of_stage:
            o.mapping_state = copy.deepcopy(o.mapping_state)
            o.check_counts_anew()
        try:
            self.terms(_shortened(batch))
            return self.terms(batch)[0]
        finally:
            for o in self.terms_of_stage:
                o.mapping_state = memories[o.name]
                if o.memory is not None:
                    o.memory.forget()

    def _is_double(self) -> bool:
        return next(self.student.parameters()).dtype == torch.float64

    def _aligner_of(self, objective: BoundObjective, averaged: bool = False) -> Aligner | None:
        name = objective.spec.alignment.borrows or objective.name
        objectives = self.terms_of_stage
        if averaged:
            assert self.average is not None
            objectives = list(self.average["objectives"])  # type: ignore[arg-type, call-overload]  # a ModuleList
        return next(o.aligner for o in objectives if o.name == name)

    def _draw(self, view: View | None) -> Mixing | None:
        return None if view is None else view.draw(generator(self.seed, "mixup", self.clock.step))

    @torch.no_grad()
    def _own_targets(self, side: Side) -> dict[Whom, Captured]:
        """The student's (and its average's) tensors on the clean input, for consistency terms."""
        found: dict[Whom, Captured] = {}
        consistent = [o for o in self.terms_of_stage if o.spec.consistent]
        for whom in dict.fromkeys(o.spec.target for o in consistent):
            readers = [o for o in consistent if o.spec.target == whom]
            passes = self._passes if whom.average is None else self._passes_of_average
            assert passes is not None
            found[whom] = passes.run(union(o.target_plan for o in readers), side.inputs, side.mask)
            twice = [o for o in readers if o.spec.mixes]
            found[whom].shared = shared_maps([*readers, *twice], "target")
        return found

    def _targets(
        self,
        objective: BoundObjective,
        teacher: Captured,
        own: dict[Whom, Captured],
        sides: Sides,
        mixing: Mixing | None,
    ) -> list[Target]:
        """The teacher's tensors, or the student's on the clean input: under mixup both partners' count there, with
        shares lambda and 1 - lambda."""
        if not objective.spec.consistent:
            return [sides.target(teacher, mixing is not None)]
        places, captured = sides.student.places, own[objective.spec.target]
        aligner = self._aligner_of(objective, objective.spec.target.average is not None)
        if mixing is None:
            return [Target(captured, places, aligner)]
        return [
            Target(captured, places, aligner, mixing.lam),
            Target(captured, places.flip(), aligner, 1 - mixing.lam, partner=True),
        ]


def _refuse_reentrant(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        function = getattr(module, "_gradient_checkpointing_func", None)
        if getattr(function, "keywords", {}).get("use_reentrant"):
            raise UserError(
                "gradient checkpointing with use_reentrant=True records queries, keys and values without gradients, so "
                'they would teach nothing; give {"use_reentrant": False} as its keyword arguments'
            )


@torch.compiler.disable  # the compiler, which cannot trace it, runs it as it is
def _refuse_compiling() -> None:
    raise UserError(
        "torch.compile of a whole DistillationModule: both models are read from inside, for which a graph has no "
        "place; compile their layers, by compile_layers=True of DistillationTrainer or by "
        "layerstill.training.compiling.compiled_layers(student, teacher)"
    )


def _shortened(batch: dict[str, Any]) -> dict[str, Any]:
    """The first example of a batch without the second half of its text: other units of every kind."""
    one = {name: value[:1] if isinstance(value, Tensor | list) else value for name, value in batch.items()}
    one.pop("own_units", None)
    mask: Tensor = batch["attention_mask"][:1]
    return one | {"attention_mask": mask * (mask.cumsum(1) <= (mask.sum(1, keepdim=True) + 1) // 2)}


def union(plans: Iterable[CapturePlan]) -> CapturePlan:
    """Everything that any of the plans asks for."""
    total = CapturePlan()
    for plan in plans:
        total = total | plan
    return total

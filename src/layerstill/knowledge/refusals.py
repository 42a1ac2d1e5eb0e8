"""What an objective cannot compare in two models under a head, each in one line that names it and a way out."""

import json
import math
from shlex import quote
from typing import TYPE_CHECKING

from layerstill.errors import UserError

if TYPE_CHECKING:  # which asks for these when it is made
    from layerstill.knowledge.bound_objective import BoundObjective


def refuse_what_cannot_meet(objective: "BoundObjective") -> None:
    """UserError for heads that are not equally many, tokens that see nothing, words that are not hidden or said, and
    what has no place in a memory."""
    _refuse_unequal_heads(objective)
    _refuse_blind_tokens(objective)
    _refuse_other_words(objective)
    _refuse_what_is_not_remembered(objective)


def _refuse_unequal_heads(o: "BoundObjective") -> None:
    heads = o.signal.relation_heads
    common = math.gcd(o.student.inner, o.source.inner if o.source is not None else 0)
    fits = [n for n in range(1, common + 1) if common % n == 0]
    path = quote(f"stages.N.objectives.{o.name}.signal")
    for side, shape in (("student", o.student), ("teacher", o.source)):
        if heads is not None and shape is not None and shape.inner % heads:
            raise UserError(
                f"objective {o.name!r}: {heads} relation heads do not divide the {side}'s width {shape.inner}; "
                f"set {path}.relation.heads, N being its stage, to one of {', '.join(map(str, fits))}"
            )
    own_heads = o.signal.maps and heads is None
    if own_heads and o.source is not None and o.student.heads != o.source.heads:
        theirs = o.source.heads
        as_many = f"set student.attention_heads to {theirs}"
        if o.student.inner % theirs:
            as_many += f" and student.hidden_size to a multiple of {theirs}"
        free = {"relation": {"of": "Q-K", "heads": max(n for n in fits if n <= theirs)}}
        raise UserError(
            f"objective {o.name!r}: the student has {o.student.heads} attention heads and the teacher "
            f"{theirs}, so their maps cannot be compared; {as_many}, or compare queries with keys in other heads: "
            f"set {path} to {json.dumps(free)}, N being its stage"
        )


def _refuse_blind_tokens(o: "BoundObjective") -> None:
    if not o.student.causal:
        return
    if why := o.signal.blind_in_causal_models():
        raise UserError(f"objective {o.name!r}: {why}")
    if o.signal.gold and o.spec.mixes and not o.head.per_token:
        raise UserError(
            f"objective {o.name!r}: a causal model answers at an example's last token, before the end of a "
            "longer partner, so the partner's label is not a target under mixup; set view: clean there"
        )


def _refuse_other_words(o: "BoundObjective") -> None:
    """UserError for what hidden words, and logits over a vocabulary, are not for."""
    hides = o.spec.view is not None and o.spec.view.hides
    if hides and not o.head.hides:
        raise UserError(
            f"objective {o.name!r}: view masked hides words of running text (--task text) from an encoder; "
            "set view: clean here"
        )
    if o.signal.everywhere and not o.head.speaks:
        raise UserError(f"objective {o.name!r}: token_logits are of a language model (--task text); use logits")
    if not o.over_words:
        return
    if o.spec.mixes or o.spec.consistent:
        what = "view mixup" if o.spec.mixes else "a target other than the teacher"
        raise UserError(
            f"objective {o.name!r}: {what} is not for the logits of a language model; compare hidden states so"
        )
    if o.signal.gold and o.head.hides and not hides:
        raise UserError(
            f"objective {o.name!r} asks for hidden words, and its view hides none; set view: masked in its stage"
        )


def _refuse_what_is_not_remembered(o: "BoundObjective") -> None:
    if not o.spec.remembers:
        return
    if not o.head.answers_texts:
        raise UserError(
            f"objective {o.name!r}: its distance remembers every text of a task, and running text has no such texts; "
            "use distance: infonce"
        )
    if o.spec.mixes:
        raise UserError(f"objective {o.name!r}: its distance remembers whole texts; set view: clean there")
    if (comparisons := o.comparisons(0, 0)) > 1:
        raise UserError(
            f"objective {o.name!r}: its mapping makes {comparisons} comparisons, and its distance remembers one vector "
            "of an example; use mapping: all, which joins the layers, or mapping: last"
        )

"""How tags say where entities are: IOB2, and what can be rewritten as IOB2 without a doubt.

IOB2 has `B-TYPE` at the first word of every entity and `I-TYPE` at its others. IOB1 has `B-` only between two
entities of one type that touch. BIOES (BILOU) marks the last word with `E-` (`L-`) and an only word with `S-` (`U-`).
"""

import re
from collections.abc import Callable, Sequence

from layerstill.errors import UserError

OUTSIDE = "O"
_CHUNK = re.compile(r"[BIESLU]-.+")
_LAST = {"E": "I", "L": "I", "S": "B", "U": "B"}

Where = Callable[[int, int], str]
"""The place of a word, by numbers of sentence and word, in words."""


def has_entities(names: Sequence[str]) -> bool:
    """Whether tags are parts of entities, as opposed to, say, parts of speech."""
    return any(_CHUNK.fullmatch(name) for name in names)


def as_iob2(tags: list[list[str]], where: Where, source: str) -> tuple[list[list[str]], list[str]]:
    """Tags in IOB2, and a notice of what was rewritten; tags that are no parts of entities as they are.

    UserError with the place of the first tag that no scheme explains: an `I-` without its `B-` among tags that are
    IOB2 elsewhere, or a tag that has no place in any of them.
    """
    names = {tag for sentence in tags for tag in sentence}
    if not has_entities(sorted(names)):
        untyped = sorted(names) if names <= {"B", "I", OUTSIDE, "b", "i", "o"} and len(names) > 1 else []
        told = (
            f"{source}: the tags {', '.join(untyped)} name no type, so words are scored and not entities; write B-TYPE"
        )
        return tags, [told] * bool(untyped)
    _refuse_foreign(tags, where)
    notices, written = [], tags
    ends = {tag[0] for sentence in tags for tag in sentence if tag[0] in _LAST and tag != OUTSIDE}
    if ends:
        name = "BILOU" if ends <= {"L", "U"} else "BIOES"
        tags = [[_LAST.get(tag[0], tag[0]) + tag[1:] for tag in sentence] for sentence in tags]
        notices.append(f"{source}: its tags are {name} and are rewritten as IOB2")
    loose = [(s, w) for s, sentence in enumerate(tags) for w in range(len(sentence)) if _begins_with_i(sentence, w)]
    if not loose:
        return tags, notices
    firm = next((sentence[w] for sentence in tags for w in range(len(sentence)) if _iob2_only(sentence, w)), None)
    if firm is not None or ends:
        at, word = loose[0]
        tag = written[at][word]
        before = f"after {written[at][word - 1]}" if word else "at the beginning of a sentence"
        more = f"; {len(loose) - 1} more tags of {source} are like this" if len(loose) > 1 else ""
        raise UserError(
            f"{where(at, word)}: {tag} {before} continues no entity; write B{tag[1:]}, as every entity of IOB2 "
            f"begins{more}"
        )
    notices.append(f"{source}: its tags are IOB1 and are rewritten as IOB2")
    begins = set(loose)
    return [
        [f"B{tag[1:]}" if (s, w) in begins else tag for w, tag in enumerate(sentence)]
        for s, sentence in enumerate(tags)
    ], notices


def _refuse_foreign(tags: list[list[str]], where: Where) -> None:
    for s, sentence in enumerate(tags):
        for w, tag in enumerate(sentence):
            if tag != OUTSIDE and not _CHUNK.fullmatch(tag):
                header = "; if this line names the columns, take it out" if s == w == 0 else ""
                raise UserError(
                    f"{where(s, w)}: tag {tag!r} among tags of entities, which are O, B-TYPE and I-TYPE{header}"
                )


def _begins_with_i(sentence: list[str], at: int) -> bool:
    """Whether an entity begins here though the tag says that it goes on."""
    before = sentence[at - 1] if at else OUTSIDE
    return sentence[at].startswith("I-") and (before == OUTSIDE or before[2:] != sentence[at][2:])


def _iob2_only(sentence: list[str], at: int) -> bool:
    """Whether a `B-` stands where IOB1 has none: not right after an entity of the same type."""
    before = sentence[at - 1] if at else OUTSIDE
    return sentence[at].startswith("B-") and (before == OUTSIDE or before[2:] != sentence[at][2:])

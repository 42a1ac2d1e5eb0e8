"""Words of one's own: a signal, a mapping and a distance that layerstill does not have, in one file outside of it.

    python examples/own_words.py TEACHER --output student

A recipe uses them as objects in Python, or by name in YAML when it is read with `words=`. They get what shipped words
have: the plan, the teacher cache, several processes, resuming, the report and the model card. The data are the support
tickets that come along. docs/words.md says which methods a word of each kind answers.
"""

import argparse
from pathlib import Path
from typing import ClassVar

from torch.nn import functional as F

from layerstill import Options, Recipe, Result, Stage, Task, distill
from layerstill.knowledge.capture import CapturePlan
from layerstill.knowledge.distances import Distance
from layerstill.knowledge.mappings import Group, Mapping
from layerstill.knowledge.objective import Objective
from layerstill.knowledge.precision import wide
from layerstill.knowledge.signals import Signal
from layerstill.schema import Positive


class Added(Signal):
    """What a layer adds to its input, for every token `(B, N, d)`."""

    inside: ClassVar[bool] = True  # it belongs to a layer, so the embeddings have none
    vectors: ClassVar[bool] = True  # the last axis is the model's width, so an alignment may map it
    per: ClassVar = "tokens"  # it has one row of values for every real token

    def plan(self, layers):
        """A layer's output and its input, which is the output of the layer before; 0 is the embeddings."""
        return CapturePlan(hidden=frozenset(layers) | {k - 1 for k in layers})

    def read(self, captured, layer, places, padding, reads):
        """The values, and a mask of what counts that broadcasts to them."""
        added = wide(captured.hidden[layer]) - wide(captured.hidden[layer - 1])
        return added, places.tokens[..., None]


class Neighbours(Mapping):
    """Student layer i learns from the teacher layer at the same relative depth and, a little, from those beside it."""

    beside: Positive = 0.25
    """Weight of each neighbour; the middle one has 1."""

    def groups(self, S, T, rng):
        """The groups of layers that meet: S and T are the depths of student and teacher."""
        middles = {i: max(round(i * T / S), 1) for i in range(1, S + 1)}
        near = [(i, m + d, self.beside if d else 1.0) for i, m in middles.items() for d in (-1, 0, 1)]
        return [Group((i,), (t,), weight) for i, t, weight in near if 1 <= t <= T]


class Relative(Distance):
    """Squared error of a row divided by the teacher's squared length."""

    counts: ClassVar = "rows"  # what its count is a number of

    def __call__(self, student, teacher, mask):
        """Sum and count over rows that have anything to compare; dividing is done elsewhere, once."""
        s, t = (wide(x).masked_fill(~mask, 0) for x in (student, teacher))
        rows = mask.expand(s.shape).any(-1)
        error = F.mse_loss(s, t, reduction="none").sum(-1) / t.square().sum(-1).clamp(min=1e-6)
        return error.masked_fill(~rows, 0).sum(), rows.sum()


WORDS = [Added, Neighbours, Relative]
YAML = """
name: own words
stages:
  - epochs: 2
    learning_rate: 5e-5
    objectives:
      task: {signal: labels}
      added: {signal: added, mapping: {neighbours: {beside: 0.5}}, alignment: linear, distance: relative}
"""


def in_python() -> Recipe:
    """The same recipe as `YAML`, made of objects."""
    read = Objective.model_validate
    added = {"signal": Added(), "mapping": Neighbours(beside=0.5), "alignment": "linear", "distance": Relative()}
    stage = Stage(epochs=2.0, learning_rate=5e-5, objectives={"task": read({"signal": "labels"}), "added": read(added)})
    return Recipe(name="own words", stages=[stage])


def main(words: list[str] | None = None) -> Result:
    """Read the recipe from a file and distil with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="made by layerstill finetune MODEL --task tickets")
    parser.add_argument("--student-layers", type=int, default=3)
    parser.add_argument("--max-steps", type=int, default=None)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(words)
    file = args.output.with_suffix(".yaml")
    file.write_text(YAML, "utf-8")
    recipe = Recipe.load(file, words=WORDS)  # a file never imports code, so the words are handed over
    assert recipe == in_python()
    options = Options(max_length=64, max_steps=args.max_steps)
    return distill(args.teacher, Task.demo(), recipe, args.student_layers, args.output, options)


if __name__ == "__main__":
    print(main().metrics)

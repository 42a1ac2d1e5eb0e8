"""Cut a student out of a source model: fewer layers, and if asked for smaller widths."""

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from layerstill.errors import UserError
from layerstill.families import depth_of, embeddings_of, family_of
from layerstill.randomness import generator
from layerstill.students.narrowing import Narrowing, narrow_config
from layerstill.students.spec import StudentSpec
from layerstill.students.vocabulary import Vocabulary


def student_config(source: PretrainedConfig, depth: int, spec: StudentSpec, seed: int) -> PretrainedConfig:
    """A configuration of its own with `depth` layers and the widths of `spec`; per-layer fields follow the layers.

    UserError for what does not fit the source.
    """
    total = depth_of(source)
    if not 1 <= depth <= total:
        raise UserError(f"a student of {depth} layers does not fit a source of {total}; choose 1 to {total}")
    family = family_of(source)
    layers = chosen_layers(source, depth, spec, seed)
    config = narrow_config(source, spec)
    setattr(config, family.depth, depth)
    for field, value in family.settings.items():
        setattr(config, field, value)
    for field in family.per_layer:
        values = getattr(source, field)
        if values is not None:
            setattr(config, field, [values[k - 1] for k in layers] if layers else values[:depth])
    return config


def chosen_layers(source: PretrainedConfig, depth: int, spec: StudentSpec, seed: int) -> list[int] | None:
    """The source layer of each student layer; None for random weights."""
    return spec.initialisation.choose(depth, depth_of(source), generator(seed, "initialisation"))


def set_trainable(student: PreTrainedModel, spec: StudentSpec) -> None:
    """Let all of the student learn but what `spec` freezes."""
    student.requires_grad_(True)
    if spec.embeddings == "frozen":
        for module in embeddings_of(student):
            module.requires_grad_(False)


def build_student(
    source: PreTrainedModel,
    depth: int,
    spec: StudentSpec,
    seed: int,
    labels: PretrainedConfig | None = None,
    vocabulary: Vocabulary | None = None,
) -> PreTrainedModel:
    """A student of `depth` layers, started from `source` as `spec` says.

    `labels` is a configuration whose label names the student takes over when the source is not the teacher;
    `vocabulary` what it keeps of the source's tokens. Weights that are not copied are drawn from torch's global
    generator. Raises UserError for a depth or width that does not fit.
    """
    config = student_config(source.config, depth, spec, seed)
    if vocabulary is not None:
        vocabulary.renumber(config)
    if labels is not None:
        config.id2label, config.label2id = dict(labels.id2label), dict(labels.label2id)
        config.num_labels = labels.num_labels
        config.problem_type = labels.problem_type
    student = type(source)(config)
    wanted = student.state_dict()
    places = _Places(source, chosen_layers(source.config, depth, spec, seed), spec)
    copied = {name: tensor for name, tensor in source.state_dict().items() if places.copied(name)}
    if vocabulary is not None:
        rows = len(source.get_input_embeddings().weight)
        # Embeddings, and a head over words; what happens to be as long keeps its length in the student.
        for name in (n for n in copied if n in wanted and places.part(n) in {"embeddings", "head"}):
            if copied[name].shape[:1] == (rows,) and wanted[name].shape[:1] == (len(vocabulary.kept),):
                copied[name] = copied[name][vocabulary.kept]
    narrowing = None
    if spec.narrower:
        layers = {name: places.layer(name) for name in copied if places.part(name) == "layer"}
        narrowing = Narrowing(copied, layers, source.config, config, spec.narrowing)
    kept: dict[str, Tensor] = {}
    for name, tensor in copied.items():
        for target in places.names_in_student(name):
            if target not in wanted:
                continue
            if narrowing is not None:
                tensor = narrowing.narrow(name, copied[name], wanted[target].shape)
            if wanted[target].shape == tensor.shape:
                kept[target] = tensor
            elif places.part(name) != "head":  # a source may have a head for another task
                raise UserError(
                    f"{name} of the source is {tuple(tensor.shape)}, the student's {tuple(wanted[target].shape)}; it "
                    "would be random"
                )
    if narrowing is not None and spec.embeddings != "random":
        kept |= _new_projector(source, wanted, copied, narrowing)
    student.load_state_dict(kept, strict=False)
    return student.to(next(source.parameters()).dtype)


def _new_projector(
    source: PreTrainedModel, wanted: dict[str, Tensor], copied: dict[str, Tensor], narrowing: Narrowing
) -> dict[str, Tensor]:
    """The map behind embeddings that are factorised in the student and not in the source."""
    stem = f"{prefix_of(source)}{narrowing.widths.projector}"
    if narrowing.widths.projector is None or f"{stem}.weight" in copied or f"{stem}.weight" not in wanted:
        return {}
    weight, bias = wanted[f"{stem}.weight"], wanted[f"{stem}.bias"]
    return {f"{stem}.weight": narrowing.projector(weight), f"{stem}.bias": torch.zeros_like(bias)}


def prefix_of(model: PreTrainedModel) -> str:
    """What the names of a body's parameters begin with: `bert.`, and nothing in a bare body."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


class _Places:
    """Which part of a model each parameter belongs to, and where it goes in the student."""

    def __init__(self, source: PreTrainedModel, layers: list[int] | None, spec: StudentSpec) -> None:
        self.family = family_of(source.config)
        self.base = prefix_of(source)
        self.stem = f"{self.base}{self.family.layers}."
        self.layers = layers
        self.spec = spec

    def part(self, name: str) -> str:
        """`layer`, `embeddings`, `head`, or `between` for the pooler and final norms."""
        if name.startswith(self.stem):
            return "layer"
        inner = name.removeprefix(self.base)
        if not name.startswith(self.base):
            return "between" if inner.startswith("pooler.") else "head"
        return "embeddings" if inner.startswith(tuple(f"{p}." for p in self.family.embeddings)) else "between"

    def copied(self, name: str) -> bool:
        """Whether the student gets this parameter."""
        if not self.names_in_student(name):
            return False
        return {
            "layer": self.layers is not None,
            "embeddings": self.spec.embeddings != "random",
            "between": self.spec.pooler == "copied",
            "head": self.spec.head == "copied",
        }[self.part(name)]

    def layer(self, name: str) -> int:
        """Number of the layer, from 1, that a parameter of a layer belongs to."""
        return int(name.removeprefix(self.stem).split(".", 1)[0]) + 1

    def names_in_student(self, name: str) -> list[str]:
        """Names of the student's parameters that are copies of this one."""
        if self.part(name) != "layer" or self.family.shared_layers:
            return [name]
        rest = name.removeprefix(self.stem).split(".", 1)[1]
        places = [i for i, k in enumerate(self.layers or []) if k == self.layer(name)]
        return [f"{self.stem}{i}.{rest}" for i in places]

"""Cut a student out of a source model: fewer layers, the rest of the architecture unchanged."""

import copy
from typing import TYPE_CHECKING

from transformers import PretrainedConfig, PreTrainedModel

from layerstill.errors import UserError
from layerstill.families import depth_of, family_of
from layerstill.randomness import generator

if TYPE_CHECKING:
    from layerstill.recipe import StudentSpec


def student_config(source: PretrainedConfig, layers: list[int] | None, depth: int) -> PretrainedConfig:
    """A configuration of its own with `depth` layers; per-layer fields follow the chosen source layers."""
    family = family_of(source)
    config = copy.deepcopy(source)
    setattr(config, family.depth, depth)
    for field in family.per_layer:
        values = getattr(source, field)
        setattr(config, field, [values[k - 1] for k in layers] if layers else values[:depth])
    return config


def build_student(
    source: PreTrainedModel, depth: int, spec: "StudentSpec", seed: int, labels: PretrainedConfig | None = None
) -> PreTrainedModel:
    """A student of `depth` layers, started from `source` as `spec` says.

    `labels` is a configuration whose label names the student takes over when the source is not the teacher. Weights
    that are not copied are drawn from torch's global generator. Raises UserError for a depth that does not fit.
    """
    total = depth_of(source.config)
    if not 1 <= depth <= total:
        raise UserError(f"a student of {depth} layers does not fit a source of {total}; choose 1 to {total}")
    layers = spec.initialisation.choose(depth, total, generator(seed, "initialisation"))
    config = student_config(source.config, layers, depth)
    if labels is not None:
        config.id2label, config.label2id = dict(labels.id2label), dict(labels.label2id)
        config.num_labels = labels.num_labels
        config.problem_type = labels.problem_type
    student = type(source)(config)
    wanted = student.state_dict()
    kept = {}
    for name, tensor in source.state_dict().items():
        part, renamed = _place(name, source, layers)
        copied = {"layer": layers is not None, "embeddings": spec.embeddings != "random"}.get(
            part, (spec.head if part == "head" else spec.pooler) == "copied"
        )
        for target in renamed:
            if copied and target in wanted and wanted[target].shape == tensor.shape:
                kept[target] = tensor
    student.load_state_dict(kept, strict=False)
    return student.to(next(source.parameters()).dtype)


def chosen_layers(source: PretrainedConfig, depth: int, spec: "StudentSpec", seed: int) -> list[int] | None:
    """The source layer of each student layer, as `build_student` will choose them."""
    return spec.initialisation.choose(depth, depth_of(source), generator(seed, "initialisation"))


def _place(name: str, source: PreTrainedModel, layers: list[int] | None) -> tuple[str, list[str]]:
    """Part of the model that a parameter belongs to, and its names in the student."""
    family = family_of(source.config)
    base = f"{source.base_model_prefix}."
    if not name.startswith(base):
        return "head", [name]
    inner = name.removeprefix(base)
    stem = f"{family.layers}."
    if inner.startswith(stem):
        number, rest = inner.removeprefix(stem).split(".", 1)
        places = [i for i, k in enumerate(layers or []) if k == int(number) + 1]
        return "layer", [f"{base}{stem}{i}.{rest}" for i in places]
    return ("embeddings" if inner.startswith("embeddings") else "between"), [name]

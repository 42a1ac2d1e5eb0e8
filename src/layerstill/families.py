"""Model families: where a family keeps its layers, and how its configuration counts them.

Only families whose capture, student cutting and reloading are proven by tests are listed; others are refused.
"""

from dataclasses import dataclass

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from layerstill.errors import UserError


@dataclass(frozen=True)
class Family:
    """One architecture as transformers implements it."""

    layers: str
    """Dotted path from the base model to its list of layers."""
    depth: str = "num_hidden_layers"
    """Field of the configuration that counts layers."""
    per_layer: tuple[str, ...] = ()
    """Fields of the configuration with one entry per layer, cut together with the layers."""


FAMILIES: dict[str, Family] = {
    "bert": Family("encoder.layer"),
    "roberta": Family("encoder.layer"),
    "electra": Family("encoder.layer"),
    "distilbert": Family("transformer.layer", depth="n_layers"),
    "modernbert": Family("layers", per_layer=("layer_types",)),
}


def family_of(config: PretrainedConfig) -> Family:
    """The family of a configuration; UserError with the list of proven ones for any other."""
    if config.model_type not in FAMILIES:
        raise UserError(f"model family {config.model_type!r} is not proven; proven: {', '.join(FAMILIES)}")
    return FAMILIES[config.model_type]


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of a model, first to last."""
    return list(model.base_model.get_submodule(family_of(model.config).layers))


def embeddings_of(model: PreTrainedModel) -> nn.Module:
    """The embedding layer of a model."""
    return model.base_model.get_submodule("embeddings")


def depth_of(config: PretrainedConfig) -> int:
    """How many layers a configuration asks for."""
    return getattr(config, family_of(config).depth)

"""Model families: where a family keeps its layers, how its configuration counts them, how its attention is read.

Only families whose capture, student cutting and reloading are proven by tests are listed; others are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from layerstill.errors import UserError
from layerstill.knowledge.bound_objective import ModelShape
from layerstill.knowledge.capture import Recorder
from layerstill.knowledge.counting import Reach
from layerstill.knowledge.projections import Projections


@dataclass(frozen=True)
class Widths:
    """Which parameters of a layer have an axis other than the hidden size: regular expressions over their names.

    Every other axis as long as the hidden size is the hidden state's. An axis that is a multiple (ModernBERT's fused
    `Wqkv`) holds as many blocks.
    """

    attention_out: str = r"attention\.self\.(query|key|value)\."
    """Projections to the attention heads; axis 0 runs over heads times head width."""
    attention_in: str = r"attention\.output\.dense\.weight"
    """The projection back; its axis 1 runs over heads times head width."""
    ffn_out: str = r"intermediate\.dense\."
    """Feed-forward up; axis 0 is the intermediate size."""
    ffn_in: str = r"(?<!attention)\.output\.dense\.weight"
    """Feed-forward down; axis 1 is the intermediate size."""
    projector: str | None = None
    """Path to the map from factorised token embeddings to the hidden size, in families that have one."""
    per_head: str | None = None
    """Path to parameters with an axis of heads that all layers share, so that all must keep the same heads."""
    rotary: bool = False
    """Whether positions turn pairs of a head's dimensions, so that heads may be dropped but not narrowed."""
    intermediate: str = "intermediate_size"
    """Field of the configuration for the feed-forward width."""
    same_as_hidden: tuple[str, ...] = ()
    """Fields of the configuration that must follow the hidden size."""


@dataclass(frozen=True)
class Family:
    """One architecture as transformers implements it. Paths start at the base model."""

    layers: str
    """Path to the list of layers."""
    depth: str = "num_hidden_layers"
    """Field of the configuration that counts layers."""
    per_layer: tuple[str, ...] = ()
    """Fields of the configuration with one entry per layer, cut together with the layers."""
    embeddings: tuple[str, ...] = ("embeddings",)
    """Paths of everything that embeds tokens and positions, relative positions included."""
    shared_layers: bool = False
    """Whether one layer is called `depth` times (ALBERT)."""
    spoken: str = ""
    """Path to the part whose last hidden states a language model's head reads, if it is not the base model."""
    causal: bool = False
    """Whether tokens see only what stands before them."""
    inclusive_window: bool = False
    """Whether a token as far away as `sliding_window` is still seen."""
    head_width: str | None = None
    """Field of the configuration for the width of an attention head, where it need not be hidden size / heads."""
    projections: Projections | None = None
    """How to read q, k, v where attention bypasses the interface of transformers."""
    scaled_query: bool = False
    """Whether attention gets its queries divided by the root of the head width already (OPT)."""
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Fields of the configuration that every student has at these values."""
    unproven: tuple[str, ...] = ()
    """Fields of the configuration whose use is not proven: a model that sets one is refused."""
    call: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Arguments that every forward pass needs."""
    segments: bool = False
    """Whether the model reads `token_type_ids`, unless its configuration has one kind of them only."""
    position_offset: bool = False
    """Whether positions are counted from after the padding index, which costs so many positions."""
    widths: Widths | None = None
    """How parameters depend on widths; None where narrower students are not proven."""


_ROBERTA = Family("encoder.layer", segments=True, position_offset=True, widths=Widths())
_DECODER = Family(
    "layers",
    embeddings=("embed_tokens",),
    causal=True,
    head_width="head_dim",
    call=MappingProxyType({"use_cache": False}),
)

FAMILIES: dict[str, Family] = {
    "bert": Family("encoder.layer", segments=True, widths=Widths()),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Family(
        "encoder.layer",
        segments=True,
        embeddings=("embeddings", "embeddings_project"),
        widths=Widths(projector="embeddings_project"),
    ),
    "albert": Family(
        "encoder.albert_layer_groups",
        segments=True,
        embeddings=("embeddings", "encoder.embedding_hidden_mapping_in"),
        shared_layers=True,
        widths=Widths(
            r"attention\.(query|key|value)\.",
            r"attention\.dense\.weight",
            r"\.ffn\.",
            r"\.ffn_output\.weight",
            projector="encoder.embedding_hidden_mapping_in",
        ),
    ),
    "distilbert": Family(
        "transformer.layer",
        depth="n_layers",
        widths=Widths(
            r"attention\.(q|k|v)_lin\.",
            r"attention\.out_lin\.weight",
            r"ffn\.lin1\.",
            r"ffn\.lin2\.weight",
            intermediate="hidden_dim",
        ),
    ),
    "modernbert": Family(
        "layers",
        inclusive_window=True,
        per_layer=("layer_types",),
        widths=Widths(r"attn\.Wqkv\.", r"attn\.Wo\.weight", r"mlp\.Wi\.", r"mlp\.Wo\.weight", rotary=True),
    ),
    "mpnet": Family(
        "encoder.layer",
        embeddings=("embeddings", "encoder.relative_attention_bias"),
        projections=Projections("attention.attn", "q", "k", "v", bias="argument"),
        position_offset=True,
        widths=Widths(
            r"attention\.attn\.(q|k|v)\.", r"attention\.attn\.o\.weight", per_head="encoder.relative_attention_bias"
        ),
    ),
    "deberta-v2": Family(
        "encoder.layer",
        segments=True,
        head_width="attention_head_size",
        unproven=("conv_kernel_size",),
        embeddings=("embeddings", "encoder.rel_embeddings", "encoder.LayerNorm"),
        projections=Projections("attention.self", "query_proj", "key_proj", "value_proj", bias="disentangled"),
        widths=Widths(r"attention\.self\.(pos_)?(query|key|value)_proj\.", same_as_hidden=("pooler_hidden_size",)),
    ),
    "llama": _DECODER,
    "qwen3": Family(**{**vars(_DECODER), "per_layer": ("layer_types",)}),
    "gemma3_text": Family(**{**vars(_DECODER), "per_layer": ("layer_types",)}),
    "gpt2": Family(
        "h",
        embeddings=("wte", "wpe"),
        causal=True,
        unproven=("scale_attn_by_inverse_layer_idx",),  # a layer in another place would compute something else
        call=_DECODER.call,
    ),
    "opt": Family(
        "decoder.layers",
        spoken="decoder",
        embeddings=("decoder.embed_tokens", "decoder.embed_positions", "decoder.project_in"),
        causal=True,
        scaled_query=True,
        settings=MappingProxyType({"layerdrop": 0.0}),  # a layer that did not run has nothing to compare
        call=_DECODER.call,
    ),
}


def family_of(config: PretrainedConfig) -> Family:
    """The family of a configuration; UserError with the list of proven ones for any other."""
    if config.model_type not in FAMILIES:
        raise UserError(f"model family {config.model_type!r} is not supported; supported: {', '.join(FAMILIES)}")
    family = FAMILIES[config.model_type]
    if family.shared_layers and (config.num_hidden_groups, config.inner_group_num) != (1, 1):
        raise UserError(
            f"model family {config.model_type!r} with num_hidden_groups {config.num_hidden_groups} and inner_group_num "
            f"{config.inner_group_num} is not supported; only 1 and 1, where all layers share their weights"
        )
    for name in family.unproven:
        if value := getattr(config, name, None):
            raise UserError(f"model family {config.model_type!r} with {name} {value} is not supported; only without it")
    return family


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of a model, first to last; the same module several times where layers share their weights."""
    family = family_of(model.config)
    layers = list(model.base_model.get_submodule(family.layers))
    return layers * depth_of(model.config) if family.shared_layers else layers


def recorder_of(model: PreTrainedModel) -> Recorder:
    """What reads hidden states, q, k and v out of a model of a proven family."""
    family = family_of(model.config)
    reads, body = inputs_of(model.config), model.base_model.get_submodule(family.spoken)
    return Recorder(model, layers_of(model), family.projections, family.call, family.scaled_query, reads, body)


def inputs_of(config: PretrainedConfig) -> tuple[str, ...]:
    """Names of what a model reads of a batch, besides its mask."""
    segments = family_of(config).segments and getattr(config, "type_vocab_size", 2) > 1
    return ("input_ids", "token_type_ids") if segments else ("input_ids",)


def embeddings_of(model: PreTrainedModel) -> list[nn.Module]:
    """The modules that embed tokens and positions; a family's optional ones only where the model has them."""
    there = dict(model.base_model.named_modules())
    return [there[path] for path in family_of(model.config).embeddings if path in there]


def depth_of(config: PretrainedConfig) -> int:
    """How many layers a configuration asks for."""
    return getattr(config, family_of(config).depth)


def shape_of(config: PretrainedConfig) -> ModelShape:
    """Depth, widths, attention heads and reach of a model."""
    family = family_of(config)
    heads = config.num_attention_heads
    head_width = getattr(config, family.head_width, None) if family.head_width else None
    inner = heads * (head_width or config.hidden_size // heads)
    causal = family.causal and not getattr(
        config, "use_bidirectional_attention", False
    )  # EmbeddingGemma sees both ways
    sees_all = not causal and not has_windows(config) and family.projections is None
    depth = depth_of(config)
    reaches = tuple(_reach(config, layer, causal) for layer in range(depth))
    return ModelShape(depth, config.hidden_size, heads, inner, causal, sees_all, reaches)


def _reach(config: PretrainedConfig, layer: int, causal: bool) -> Reach:
    """How far the attention of a layer, counted from 0, reaches."""
    kinds = getattr(config, "layer_types", None) or ()
    if not kinds or "sliding" not in kinds[layer]:
        return Reach(None, 0 if causal else None)
    near = config.sliding_window - (not family_of(config).inclusive_window)
    return Reach(near, 0 if causal else near)


def has_windows(config: PretrainedConfig) -> bool:
    """Whether some layers attend to near tokens only."""
    return any("sliding" in kind for kind in getattr(config, "layer_types", None) or ())

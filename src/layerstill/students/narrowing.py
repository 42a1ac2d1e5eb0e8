"""Narrower students: hidden size, heads, feed-forward and embedding width cut down by a stated rule.

Every width is a space with a basis B `(n, m)`: columns of the identity where units are chosen, orthonormal directions
where they are projected. A weight becomes B_out^T W B_in, a bias B_out^T b, the gain g of a norm diag(B^T diag(g) B).

- `slice`: the first m units;
- `importance`: the m units with the largest squared norm of all weights that read or write them, every matrix scaled
  to norm 1 (a head counts as the sum of its units);
- `svd`: hidden and embedding space are projected on the leading directions of all matrices that read or write them,
  every matrix scaled to norm 1; heads and feed-forward units, between which a projection would change the function, are
  chosen by importance.
"""

import copy
import re
from typing import Literal

import torch
from torch import Tensor
from transformers import PretrainedConfig

from layerstill.errors import UserError
from layerstill.families import FAMILIES, Widths, family_of, shape_of
from layerstill.students.spec import StudentSpec

Space = Literal["hidden", "embedding", "attention", "feed_forward", "heads"]


def narrow_config(config: PretrainedConfig, spec: StudentSpec) -> PretrainedConfig:
    """A copy of `config` with the widths that `spec` asks for; UserError for widths that do not fit."""
    asked = {
        "hidden_size": spec.hidden_size,
        "attention_heads": spec.attention_heads,
        "intermediate_size": spec.intermediate_size,
        "embedding_size": spec.embedding_size,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    config = copy.deepcopy(config)
    if not given:
        return config
    widths = family_of(config).widths
    if widths is None:
        proven = ", ".join(name for name, family in FAMILIES.items() if family.widths is not None)
        raise UserError(
            f"student.{next(iter(given))}: narrower students of family {config.model_type!r} are not supported; "
            f"supported: {proven}. Leave the widths out and cut layers only"
        )
    _set_hidden_size(config, spec, widths)
    if spec.intermediate_size is not None:
        _refuse_wider("intermediate_size", spec.intermediate_size, getattr(config, widths.intermediate))
        setattr(config, widths.intermediate, spec.intermediate_size)
    if spec.embedding_size is not None:
        if widths.projector is None:
            factorised = ", ".join(n for n, f in FAMILIES.items() if f.widths is not None and f.widths.projector)
            raise UserError(
                f"student.embedding_size: family {config.model_type!r} has no factorised embeddings; "
                f"those that have: {factorised}"
            )
        _refuse_wider("embedding_size", spec.embedding_size, config.embedding_size)
        config.embedding_size = spec.embedding_size
    return config


def _set_hidden_size(config: PretrainedConfig, spec: StudentSpec, widths: Widths) -> None:
    hidden, heads = config.hidden_size, config.num_attention_heads
    head_width = shape_of(config).inner // heads
    new_hidden = spec.hidden_size or hidden
    _refuse_wider("hidden_size", new_hidden, hidden)
    new_heads = spec.attention_heads
    if new_heads is None:
        # As many heads as before, so that attention maps can be compared, wherever the widths allow it.
        same = new_hidden % heads == 0 and not widths.rotary
        new_heads = heads if same or new_hidden % head_width else new_hidden // head_width
    _refuse_wider("attention_heads", new_heads, heads)
    if new_hidden % new_heads or (widths.rotary and new_hidden // new_heads != head_width):
        sizes = [n * head_width for n in range(1, heads + 1)]
        why = f"must stay {head_width} wide" if widths.rotary else "must divide it"
        raise UserError(
            f"student.hidden_size {new_hidden} with {new_heads} attention heads: heads {why}; hidden sizes that keep "
            f"the teacher's head width: {', '.join(map(str, sizes))}"
        )
    if new_hidden // new_heads > head_width:
        raise UserError(
            f"student.attention_heads {new_heads}: heads of width {new_hidden // new_heads} would be wider than the "
            f"source's {head_width}; use {-(-new_hidden // head_width)} heads or more"
        )
    factorised = widths.projector is not None and config.embedding_size != hidden
    if factorised and config.model_type == "electra" and (spec.embedding_size or config.embedding_size) == new_hidden:
        raise UserError(
            f"student.hidden_size {new_hidden} is the width of the token embeddings, so the student would have no map "
            "between the two, which its source has; choose another hidden_size, or a smaller embedding_size"
        )
    config.hidden_size, config.num_attention_heads = new_hidden, new_heads
    if widths.projector is not None and not factorised:
        config.embedding_size = new_hidden
    own_head_width = family_of(config).head_width
    if own_head_width is not None and getattr(config, own_head_width, None):
        setattr(config, own_head_width, new_hidden // new_heads)
    for field in widths.same_as_hidden:
        setattr(config, field, new_hidden)


def _refuse_wider(name: str, wanted: int, there: int) -> None:
    if wanted > there:
        raise UserError(f"student.{name} {wanted}: the source has {there}; choose {there} or less")


class Narrowing:
    """Carries weights of a source to the widths of a student.

    Args:
        weights: the source's parameters that the student will get, by the source's names.
        layers: number of the layer that each of them belongs to; names that are missing belong to none.
        source, student: configurations.
        rule: `slice`, `importance` or `svd`.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        layers: dict[str, int],
        source: PretrainedConfig,
        student: PretrainedConfig,
        rule: Literal["slice", "importance", "svd"],
    ) -> None:
        family = family_of(source)
        assert family.widths is not None
        self.widths = family.widths
        self.tables = family.embeddings
        self.layers = layers
        self.rule = rule
        self.heads = (shape_of(source).heads, shape_of(student).heads)
        self.sizes: dict[Space, tuple[int, int]] = {
            "hidden": (source.hidden_size, student.hidden_size),
            "attention": (shape_of(source).inner, shape_of(student).inner),
            "feed_forward": tuple(getattr(config, self.widths.intermediate) for config in (source, student)),
            "heads": self.heads,
        }
        projector = self.widths.projector
        mapped = projector is not None and any(projector in name for name in weights)
        # ELECTRA has no map where embeddings are as wide as layers: then the two are one space.
        self.factorised = mapped or (projector is not None and student.embedding_size != student.hidden_size)
        if self.factorised:
            self.sizes["embedding"] = (source.embedding_size, student.embedding_size)
        self.grams = self._products(weights)
        self.bases: dict[tuple[Space, int], Tensor] = {}

    def narrow(self, name: str, weight: Tensor, shape: torch.Size) -> Tensor:
        """`weight`, called `name` in the source, in the `shape` that the student has it."""
        narrowed = weight
        for axis, space in enumerate(self._spaces(name, weight)):
            if space is None or weight.shape[axis] == shape[axis]:
                continue
            basis = self._basis(space, self.layers.get(name, 0)).to(weight)
            blocks = weight.shape[axis] // basis.shape[0]
            basis = torch.block_diag(*[basis] * blocks)
            if weight.ndim == 1 and name.endswith("weight"):
                narrowed = torch.einsum("ij,i,ij->j", basis, weight, basis)
            else:
                narrowed = torch.tensordot(narrowed, basis, dims=([axis], [0])).movedim(-1, axis)
        return narrowed.contiguous()

    def projector(self, weight: Tensor) -> Tensor:
        """The map `(hidden, embedding)` of a student with factorised embeddings whose source has none."""
        hidden, embedding = self._basis("hidden", 0), self._basis("embedding", 0)
        return (hidden.T @ embedding).to(weight)

    def _spaces(self, name: str, weight: Tensor) -> list[Space | None]:
        w = self.widths
        first: Space = "hidden"
        second: Space = "hidden"
        if name in self.layers:
            if re.search(w.attention_out, name):
                first = "attention"
            elif re.search(w.attention_in, name):
                second = "attention"
            elif re.search(w.ffn_out, name):
                first = "feed_forward"
            elif re.search(w.ffn_in, name):
                second = "feed_forward"
        elif w.per_head is not None and w.per_head in name:
            return [None, "heads"]
        elif w.projector is not None and w.projector in name:
            second = "embedding"
        elif self.factorised and ".embeddings." in f".{name}":
            first = second = "embedding"
        spaces: list[Space | None] = [first, second]
        tables = [path for path in self.tables if path != w.projector]
        if weight.ndim == 2 and any(f".{path}." in f".{name}" for path in tables):
            spaces[0] = None  # tokens, positions or segments, however many they are
        return [s if s and n % self.sizes[s][0] == 0 else None for s, n in zip(spaces, weight.shape, strict=False)]

    def _products(self, weights: dict[str, Tensor]) -> dict[tuple[Space, int], Tensor]:
        """Sum of M^T M / |M|^2 over all matrices M with a space as an axis: `(n, n)`, or its diagonal `(n,)`."""
        products: dict[tuple[Space, int], Tensor] = {}
        for name, weight in weights.items():
            if weight.ndim != 2:
                continue
            for axis, space in enumerate(self._spaces(name, weight)):
                if space is None or space == "heads":
                    continue
                size = self.sizes[space][0]
                matrix = weight.detach().double().movedim(axis, 0).unflatten(0, (-1, size)).transpose(0, 1).flatten(1)
                matrix = matrix / matrix.norm().clamp(min=1e-30)
                whole = self.rule == "svd" and space in {"hidden", "embedding"}
                key = (space, 0 if space in {"hidden", "embedding"} else self.layers.get(name, 0))
                product = matrix @ matrix.T if whole else matrix.square().sum(1)
                products[key] = products.get(key, 0) + product
        return products

    def _basis(self, space: Space, layer: int) -> Tensor:
        key = (space, 0 if space in {"hidden", "embedding", "heads"} else layer)
        if key not in self.bases:
            self.bases[key] = self._new_basis(*key)
        return self.bases[key]

    def _new_basis(self, space: Space, layer: int) -> Tensor:
        size, wanted = self.sizes[space]
        if self.rule == "svd" and space in {"hidden", "embedding"}:
            vectors = torch.linalg.eigh(self.grams[space, 0]).eigenvectors.flip(1)[:, :wanted]
            # An eigenvector's sign is arbitrary: its largest component shall be positive.
            return vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        if space == "heads":
            chosen = self._chosen_heads(None)
        elif space == "attention":
            chosen = self._chosen_units(layer)
        else:
            chosen = self._best(self.grams[space, layer], wanted)
        return torch.eye(size, dtype=torch.float64)[:, chosen]

    def _best(self, importance: Tensor, wanted: int) -> Tensor:
        if self.rule == "slice":
            return torch.arange(wanted)
        return importance.argsort(descending=True, stable=True)[:wanted].sort().values

    def _chosen_heads(self, layer: int | None) -> Tensor:
        """Heads kept in a layer; in all layers, where they share parameters of single heads."""
        layers = [n for s, n in self.grams if s == "attention"] if layer is None or self.widths.per_head else [layer]
        importance = torch.stack([self.grams["attention", n] for n in layers]).sum(0)
        return self._best(importance.unflatten(0, (self.heads[0], -1)).sum(1), self.heads[1])

    def _chosen_units(self, layer: int) -> Tensor:
        size, wanted = self.sizes["attention"]
        old, new = size // self.heads[0], wanted // self.heads[1]
        units = self.grams["attention", layer].unflatten(0, (self.heads[0], old))
        return torch.cat([head * old + self._best(units[head], new) for head in self._chosen_heads(layer).tolist()])

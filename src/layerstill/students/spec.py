"""What a recipe says about its student: where the weights come from, how wide it is, which tokens it knows."""

from typing import Annotated, Any, Literal

from pydantic import PositiveInt

from layerstill.schema import OneOf, Spec
from layerstill.students.initialisation import INITIALISATIONS, FirstK, Initialisation


class StudentSpec(Spec):
    """Where the student's weights come from."""

    initialisation: Annotated[Any, OneOf("initialisation", Initialisation, INITIALISATIONS)] = FirstK()
    """Which layers of the source start the student."""
    embeddings: Literal["copied", "frozen", "random"] = "copied"
    """The embedding layer; `frozen` is copied and not trained, which saves most of the optimiser's work."""
    pooler: Literal["copied", "random"] = "copied"
    """The pooler, where the family has one, and other modules between layers and head."""
    head: Literal["copied", "random"] = "copied"
    """The task head."""
    hidden_size: PositiveInt | None = None
    """Width of the hidden states, if it shall be smaller than the source's."""
    attention_heads: PositiveInt | None = None
    """Attention heads; without it the source's number if that divides hidden_size, else as many as keep their width."""
    intermediate_size: PositiveInt | None = None
    """Width of the feed-forward layers, if it shall be smaller than the source's."""
    embedding_size: PositiveInt | None = None
    """Width of factorised token embeddings, in families that have them."""
    vocabulary: PositiveInt | Literal["train"] | None = None
    """`train` keeps the tokens that the training texts, or the corpus, use, a number the most frequent of them."""
    narrowing: Literal["slice", "importance", "svd"] = "importance"
    """How smaller widths start: the first units, the most important ones, or (hidden states and embeddings) the
    leading directions."""

    @property
    def narrower(self) -> bool:
        """Whether any width is given."""
        return any((self.hidden_size, self.attention_heads, self.intermediate_size, self.embedding_size))

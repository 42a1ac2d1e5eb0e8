"""Where the examples of a task came from: what a run writes down, so that it finds them again."""

from pathlib import Path

from pydantic import Field

from layerstill.schema import Spec


class Place(Spec):
    """A file or a folder, as its user wrote it and from the root, so that it is found from another folder, too."""

    given: str
    absolute: str

    @classmethod
    def of(cls, path: str | Path) -> "Place":
        """That of a path as it is seen from here."""
        return cls(given=str(path), absolute=str(Path(path).absolute()))

    @property
    def path(self) -> Path:
        """Where it is now; of a place that is gone, where it was."""
        found = (path for path in (Path(self.absolute), Path(self.given)) if path.exists())
        return next(found, Path(self.absolute))

    def is_at(self, path: str | Path) -> bool:
        """Whether a path leads there."""
        return Path(path).resolve() == self.path.resolve()


class TaskSource(Spec):
    """What a task was read from, in the words of the options; labels and tags have the columns that were given."""

    kind: str
    """The word of `--task`."""
    data: Place | None = None
    """None for what was in memory, came from the hub or comes along."""
    dev: Place | None = None
    text_columns: list[str] = Field(default_factory=list)
    """Those that were read, also where nobody named them; empty where the words of sentences were found."""
    label_column: str = "label"
    weight_column: str | None = None
    """What each training example counts in the loss on labels."""
    label_map: dict[str, str] = Field(default_factory=dict)
    """Other names for labels of the data."""
    train_examples: int | None = None
    """Only so many of the training examples."""

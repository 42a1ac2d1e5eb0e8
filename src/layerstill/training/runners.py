"""Models as what is timed: loaded from their folders, with their sizes."""

from dataclasses import replace
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerstill.evaluation.footprint import disk_mb, memory_mb
from layerstill.evaluation.latency import Runner, Speed, measure_speed, torch_runner
from layerstill.training.model_files import INDEX, WEIGHTS, weight_files
from layerstill.training.models import adopt_padding, load_tokenizer, load_with_its_head


def load_runner(name: str, max_length: int) -> Runner:
    """A folder's or hub id's model on the CPU, ready to run texts.

    They are cut at `max_length` tokens, or where its tokenizer says that the model ends. UserError as for every model.
    """
    model = load_with_its_head(name)
    tokenizer = load_tokenizer(name, model.config)
    adopt_padding(model, tokenizer)
    return torch_runner(model, tokenizer, min(max_length, tokenizer.model_max_length))


def weights_mb(name: str) -> float | None:
    """MB of 10^6 bytes of a folder's or hub id's weight files; None if the hub's are not in the cache."""
    folder = Path(name)
    if not folder.is_dir():
        found = [try_to_load_from_cache(name, file) for file in (WEIGHTS, INDEX)]
        there = [Path(path).parent for path in found if isinstance(path, str)]
        if not there:
            return None
        folder = there[0]
    return disk_mb(weight_files(folder))


def speed_of(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[tuple[str, ...]],
    max_length: int,
    threads: int,
) -> Speed:
    """The speed and sizes of a `model` that was loaded from the folder or hub id `name`, on the CPU."""
    device = model.device
    model.to("cpu")
    measured = measure_speed({name: torch_runner(model, tokenizer, max_length)}, texts, threads=threads)[name]
    model.to(device)
    memory = memory_mb(load_runner, (name, max_length), texts[0])
    return replace(measured, disk_mb=weights_mb(name), memory_mb=memory)

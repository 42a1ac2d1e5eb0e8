"""Steps of every head and of three recipes: on any device they are those of exact arithmetic."""

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import masking_utils

from layerstill.data.encode import Collator, encode
from layerstill.data.tasks import Task
from layerstill.heads import Classes
from layerstill.training.teacher_cache import Contents, TeacherCache
from tests.gpu.cases import CASES, batches_of, module_of, moved, values
from tests.tiny import tiny_tokenizer, write_csv

CACHED = [("kd", 0), ("tinybert", 0), ("tinybert", 1), ("rail-kd-l", 0), ("att-kl", 0)]
READS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique_dim", "_unique2"}
"""Operations whose result, or its shape, the host waits for."""


@pytest.mark.parametrize(("head", "recipe", "stage"), CASES)
def test_losses_of_some_steps_are_those_of_exact_arithmetic(head, recipe, stage, device):
    """Each within half a thousandth, so that any two devices are within a thousandth of each other."""
    exact = values(
        module_of(head, recipe, stage, torch.float64).double(), batches_of(head), torch.device("cpu"), torch.float64
    )
    found = values(module_of(head, recipe, stage), batches_of(head), device)
    assert len(found) == len(exact) > 1
    assert exact[0] != exact[-1], "it has moved"
    for ours, theirs in zip(found, exact, strict=True):
        assert ours == pytest.approx(theirs, rel=5e-4, abs=5e-6)


@pytest.mark.parametrize(("head", "recipe", "stage"), CASES)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_losses_in_sixteen_bits_are_near_those_in_fp32(head, recipe, stage, kind, device):
    found = values(module_of(head, recipe, stage, kind), batches_of(head), device, kind)
    exact = values(module_of(head, recipe, stage), batches_of(head), device)
    assert found != exact
    tolerance = 0.05 if kind is torch.bfloat16 else 0.01
    for ours, theirs in zip(found, exact, strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=1e-3)


@pytest.fixture
def data(tmp_path):
    for split in ("train", "dev"):
        write_csv(tmp_path / f"{split}.csv", rows=24)
    task = Task.from_files("classification", tmp_path)
    return encode(task.splits["train"], tiny_tokenizer(), 32, task.head).dataset


def cached(recipe: str, stage: int, data, folder, device):
    """A module that reads a cache which was filled on `device`, and a live one; batches for both."""
    module, live = module_of("classification", recipe, stage), module_of("classification", recipe, stage)
    collator = Collator(tiny_tokenizer(), Classes())
    contents = Contents.of(module.objectives)
    filled = TeacherCache(folder, "t", contents)
    assert filled.fill(data, module.to(device).source.ask, collator, device) == len(set(data["content"]))
    module.source.cache = TeacherCache(folder, "t", contents)
    return module, live, [collator([data[i] for i in rows]) for rows in ((0, 3, 11, 7), (1, 5, 2, 20), (6, 4, 9, 8))]


@pytest.mark.parametrize(("recipe", "stage"), CACHED)
def test_a_cache_filled_and_read_on_the_device_teaches_what_a_live_teacher_does(recipe, stage, data, tmp_path, device):
    module, live, batches = cached(recipe, stage, data, tmp_path / "cache", device)
    module.source.ask = None  # it is not asked
    for ours, theirs in zip(values(module, batches, device), values(live, batches, device), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4, abs=2e-6)


class Host(TorchDispatchMode):
    """Counts what the host reads of tensors on a device, and what is copied to it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.reads: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        made = function(*args, **(kwargs or {}))
        of_device = any(isinstance(x, torch.Tensor) and x.device.type == self.device.type for x in args)
        by_truth = name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1])
        copied = isinstance(made, torch.Tensor) and of_device and made.device.type != self.device.type
        if (name in READS and of_device) or by_truth or copied:
            self.reads[name] += 1
        return made


@pytest.mark.parametrize(("recipe", "stage"), CACHED)
@pytest.mark.parametrize("read", [False, True], ids=["live", "cached"])
def test_a_step_reads_nothing_from_the_device_but_what_transformers_asks_of_a_mask(
    recipe, stage, read, data, tmp_path, device
):
    """Whether there is padding: once for each model that runs. Counts are checked on the first batches, and not later."""
    module, live, batches = cached(recipe, stage, data, tmp_path / "cache", device)
    module = module if read else live
    values(module, batches, device)
    on_device = [moved(one, device) for one in batches]
    with Host(device) as host:
        for one in on_device:
            module(**one)["loss"].backward()
            module.finish_step()
    looks = len(batches) * (1 if read else 2)
    if (
        read and device.type == "cpu"
    ):  # where texts are padded on the right is seen by looking, which costs nothing there
        looks += len(batches) * sum(map(module.source.cache.contents.ragged, module.source.cache.contents.names()))
    assert set(host.reads) <= {"_local_scalar_dense"}, host.reads
    assert host.reads["_local_scalar_dense"] <= looks


@contextmanager
def waiting_is_an_error():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize(("recipe", "stage"), CACHED)
@pytest.mark.parametrize("read", [False, True], ids=["live", "cached"])
def test_a_step_does_not_wait_for_the_gpu(recipe, stage, read, data, tmp_path, monkeypatch):
    """As torch says it, which also sees kernels that wait without an operation of that name."""
    device = torch.device("cuda")
    module, live, batches = cached(recipe, stage, data, tmp_path / "cache", device)
    module = module if read else live
    values(module, batches, device)
    # Transformers asks every mask whether it hides anything: it is told that it does, as these batches have it.
    monkeypatch.setattr(masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *args, **kwargs: False)
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], fused=True)
    on_device = [moved(one, device) for one in batches]
    with waiting_is_an_error():
        for one in on_device:
            module(**one)["loss"].backward()
            optimiser.step()
            optimiser.zero_grad()
            module.finish_step()

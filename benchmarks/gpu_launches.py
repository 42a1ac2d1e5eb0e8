"""Kernel launches of a training step on a GPU, and how much of the step the GPU is busy: torch's profiler on BERT-base.

    python benchmarks/gpu_launches.py [--record FILE] [--quick]

12 to 6 layers with random weights, batch 32, 80 tokens, bf16, the recipe of launches.py; the plain loop beside it is
launches.py's, too. `busy` is the sum of all kernels' times over the time of a step without the profiler. Where there is
no GPU the launches are 0. `--quick` takes a tiny model.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from launches import collate, models, module_of, plain_step, rows, step_of
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
ROWS, TOKENS = 32, 80
STEPS = 5


def wait() -> None:
    """Until the GPU has done everything."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def profiled(step: Callable[[dict[str, Tensor]], None], batch: dict[str, Tensor], where: str) -> dict[str, float]:
    """Launches, milliseconds and busy milliseconds of a step."""

    def run() -> None:
        with torch.autocast(where, torch.bfloat16):
            step(batch)

    for _ in range(3):  # the first ones are checked
        run()
    times = []
    for _ in range(STEPS):
        wait()
        begun = time.perf_counter()
        run()
        wait()
        times.append(1000 * (time.perf_counter() - begun))
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * torch.cuda.is_available()]
    with profile(activities=activities) as seen:
        for _ in range(STEPS):
            run()
        wait()
    events = seen.key_averages()
    launches = sum(event.count for event in events if event.key in LAUNCHES) / STEPS
    on_device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.self_device_time_total for event in on_device) / STEPS / 1000
    took = median(times)
    return {"launches": round(launches), "milliseconds": round(took, 2), "busy_milliseconds": round(busy, 2)} | {
        "busy": round(busy / took, 3)
    }


def main() -> None:
    """Profile, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    where = "cuda" if torch.cuda.is_available() else "cpu"
    shape = ((4, 2), 32, 2) if args.quick else ((12, 6), 768, 12)
    size, tokens = (4, 16) if args.quick else (ROWS, TOKENS)
    data = rows(size, tokens)
    batch = {name: values.to(where) for name, values in collate([data[i] for i in range(size)]).items()}
    found: dict[str, Any] = {"accelerator": torch.cuda.get_device_name() if where == "cuda" else "none"}
    for name, made in (
        ("plain loop", plain_step),
        ("module, optimiser", lambda t, s: step_of(module_of(t, s).to(where))),
    ):
        teacher, student = (model.to(where) for model in models(*shape))
        found[name] = profiled(made(teacher.eval(), student.train()), batch, where)
    print(json.dumps(found, indent=1))
    if args.record:
        args.record.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""How much memory a model takes: what a fresh process holds more after it has loaded the model and run a text."""

import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from layerstill.errors import UserError

MB = 10**6
PACKAGES = Path(__file__).parents[2]
LONGEST = 600
"""Seconds that loading a model and running a text may take."""


def disk_mb(files: Sequence[Path]) -> float:
    """Size of files in MB of 10^6 bytes."""
    return round(sum(file.stat().st_size for file in files) / MB, 1)


def memory_mb(
    loader: Callable[..., Any], arguments: Sequence[Any], text: tuple[str, ...], libraries: Sequence[str] = ()
) -> float:
    """MB of 10^6 bytes that a fresh process holds more after `loader(*arguments)([text])` than before.

    `loader` is a function or class at the top of its module that makes a `Runner`. What its module imports and
    `libraries` are loaded before; what they set up when they first compute counts. The arguments must be what JSON can
    hold.
    UserError if the process fails.
    """
    order = {"module": loader.__module__, "name": loader.__name__, "arguments": list(arguments), "text": list(text)}
    order["libraries"] = list(libraries)
    path = os.pathsep.join([str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(order),
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=LONGEST,
        )
        return float(done.stdout.split("\n")[-2])
    except (ValueError, IndexError, subprocess.TimeoutExpired) as error:
        why = f"it took more than {LONGEST} s"
        if not isinstance(error, subprocess.TimeoutExpired):
            why = next(iter(done.stderr.strip().split("\n")[-1:]), "") or f"it ended with status {done.returncode}"
        raise UserError(
            f"latency: the process that measures the memory of {' '.join(map(str, arguments))} failed: {why}; "
            "free some memory and run the command again"
        ) from None


def _measure(order: dict[str, Any]) -> float:
    loader = getattr(importlib.import_module(order["module"]), order["name"])
    for library in order["libraries"]:
        importlib.import_module(library)
    gc.collect()
    before = psutil.Process().memory_info().rss
    runner = loader(*order["arguments"])
    runner([tuple(order["text"])])
    gc.collect()
    return (psutil.Process().memory_info().rss - before) / MB


if __name__ == "__main__":
    print(f"\n{_measure(json.loads(sys.stdin.read())):.1f}")

"""Command lines in a process of its own: `python -m tests.gpu.worker ORDERS.json`, the orders as in tests/training/pair.py.

With `WORLD_SIZE` in its environment it is one of several that share a card: the launcher's number of a process on its
machine chooses the card, so all say 0, and they talk over gloo, since NCCL wants a card for each.
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch

from tests.training.pair import follow

if __name__ == "__main__":
    torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:
        torch.distributed.init_process_group("gloo", timeout=timedelta(minutes=2))
    statuses = follow(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    sys.exit(max(statuses, default=0))

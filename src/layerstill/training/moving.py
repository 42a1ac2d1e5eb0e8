"""From the host's memory to that of a device."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`, without waiting for what a GPU is still doing.

    From ordinary memory CUDA copies when everything before is done, and the host waits for it; from pinned memory the
    copy takes its turn.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

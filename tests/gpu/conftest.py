"""Every test here is for the CPU and for a GPU alike: the CPU's run shows that the test works, the GPU's what it says."""

import pytest
import torch

NO_GPU = "torch sees no GPU"


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=NO_GPU))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> torch.device:
    """Where a test computes."""
    return torch.device(request.param)

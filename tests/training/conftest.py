"""What the tests of killed runs share."""

import pytest

from tests.training.forks import Forks


@pytest.fixture(scope="module")
def forks():
    server = Forks()
    yield server
    server.close()

"""What holds for every test: no network, and the hub is not asked."""

import logging
import os
import shlex
import socket

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ["HF_DATASETS_OFFLINE"] = "1"

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


class NetworkBlockedError(OSError):
    """A test tried to leave the machine."""


def _refuse_the_world(connect):
    def guarded(self: socket.socket, address: object, *rest: object) -> object:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(host).startswith(_LOOPBACK):
            raise NetworkBlockedError(f"tests do not use the network, and this one asked for {address}")
        return connect(self, address, *rest)

    return guarded


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", _refuse_the_world(socket.socket.connect))
    patch.setattr(socket.socket, "connect_ex", _refuse_the_world(socket.socket.connect_ex))
    yield
    patch.undo()


@pytest.fixture
def call(capsys):
    """The command line in this process: exit status, standard output and standard error of `layerstill WORDS`."""
    from tests.command import status_of

    def run(words: str | list[str]) -> tuple[int, str, str]:
        logging.getLogger("layerstill").handlers.clear()  # a new process would have none, and a new standard error
        status = status_of(*(shlex.split(words) if isinstance(words, str) else words))
        out = capsys.readouterr()
        return status, out.out, out.err

    return run

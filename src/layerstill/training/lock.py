"""The lock of a run folder: held by one process, let go by the kernel when that process dies, however it dies."""

import contextlib
import fcntl
import os
from pathlib import Path

from layerstill.errors import UserError

LOCK_FILE = "run.lock"


class FolderLock:
    """`run.lock` in a folder, which holds the number of the process that is at work there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / LOCK_FILE
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock; UserError if a living process has it."""
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
                os.close(descriptor)
                raise UserError(
                    f"--output {self.folder}: process {holder or 'unknown'} is at work in this folder; wait until it "
                    "has ended, or choose another folder"
                ) from None
            if self._is_still_there(descriptor):
                self._descriptor = descriptor
            else:  # its holder removed the file between our opening and locking it
                os.close(descriptor)
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Remove the file and let go."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # in a folder that has become read-only it stays, and binds nobody
                self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def _is_still_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

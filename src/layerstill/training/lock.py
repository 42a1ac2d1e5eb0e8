"""The lock of a run folder: held by one process, let go by the kernel when that process dies, however it dies."""

import contextlib
import os
from pathlib import Path

from filelock import FileLock, Timeout

from layerstill.errors import UserError

LOCK_FILE = "run.lock"


class FolderLock:
    """`run.lock` in a folder, which holds the number of the process that is at work there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / LOCK_FILE
        self._lock = FileLock(self.path, timeout=0, thread_local=False)

    def take(self) -> None:
        """Take the lock; UserError if a living process has it."""
        holder = self._holder()  # before we try, because some versions of filelock empty the file when they open it
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(
                f"--output {self.folder}: process {holder or 'unknown'} is working in this folder; wait until it "
                f"ends, or choose another folder"
            ) from None
        # On Windows the first byte is what is locked, and nobody else can read it: the number comes after it.
        with self.path.open("r+b", buffering=0) as file:
            file.truncate(1)
            file.seek(1)
            file.write(f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Remove the file and let go."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # in a folder that has become read-only it stays, and binds nobody
                self.path.unlink()  # before letting go, so that no other process has taken it by then
            self._lock.release(force=True)

    def _holder(self) -> str:
        """The number of the process that wrote the file last; empty if there is none."""
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(1)
                return (file.read(32) or b"").decode("ascii", "replace").strip()
        except OSError:
            return ""

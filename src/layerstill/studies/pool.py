"""Jobs in worker processes, as many at a time as there are workers."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from layerstill.studies.job import Job

LONGEST_LINE = 1 << 24
MOST_JOBS = 50
"""Jobs that a process does before another takes its place, so that nothing that a job leaves behind piles up."""


@dataclass(frozen=True)
class Reply:
    """What became of a job."""

    error: str | None
    refused: bool
    """Whether the error is layerstill's own word, as opposed to a bug or a dead process."""
    seconds: float


class Pool(Protocol):
    """Somewhere to send jobs."""

    async def perform(self, job: Job) -> Reply:
        """Do a job when there is room for it."""

    async def close(self) -> None:
        """End every process."""


class Worker:
    """One process of the module `program`, started for its first job.

    It is started anew after it has died, after `MOST_JOBS` jobs, and after a job that ended in an error that is not
    layerstill's own word, because nobody knows what that left behind.

    It takes a job as a line of JSON and answers with `error`, `refused` and `seconds` as another.
    """

    def __init__(self, log: Path, threads: int, program: str) -> None:
        self.log = log
        self.program = program
        self.threads = threads
        self._process: asyncio.subprocess.Process | None = None
        self._done = 0

    async def perform(self, job: Job) -> Reply:
        """Send a job and wait; a process that dies over it is a failed job."""
        process = self._process or await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        begun = asyncio.get_running_loop().time()
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        if line.endswith(b"\n"):
            said = json.loads(line)
            reply = Reply(said["error"], said["refused"], said["seconds"])
            self._done += 1
            if self._done == MOST_JOBS or (reply.error is not None and not reply.refused):
                await self.close()
            return reply
        seconds = asyncio.get_running_loop().time() - begun
        status = await process.wait()
        self._process = None
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return Reply(f"the worker process died ({how}); see {self.log}", False, seconds)

    async def _start(self) -> asyncio.subprocess.Process:
        self._done = 0
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self.program),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=os.environ | threads,
                start_new_session=True,  # Ctrl-C is for the study, which ends its workers itself
                limit=LONGEST_LINE,
            )
        return self._process

    async def close(self) -> None:
        """End the process; a job it is at is gone on with another time."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._process = None


class LocalPool:
    """`count` workers on this machine, each with so many threads."""

    def __init__(self, count: int, logs: Path, program: str, threads: int = 1) -> None:
        self.workers = [Worker(logs / f"worker-{i}.log", threads, program) for i in range(1, count + 1)]
        self._free: asyncio.Queue[Worker] = asyncio.Queue()
        for worker in self.workers:
            self._free.put_nowait(worker)

    async def perform(self, job: Job) -> Reply:
        """See `Pool.perform`; jobs are taken in the order in which they came."""
        worker = await self._free.get()
        try:
            return await worker.perform(job)
        finally:
            self._free.put_nowait(worker)

    async def close(self) -> None:
        """See `Pool.close`."""
        await asyncio.gather(*(worker.close() for worker in self.workers))


def first_line(text: Any) -> str:
    """The first line that says anything."""
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")

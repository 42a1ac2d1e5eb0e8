"""A worker process: `python -m layerstill.acts.worker`. One JSON line a job in, one JSON line back.

It does many jobs, because importing torch takes seconds, and keeps the data that they share. When the process that
started it is gone, however it went, standard input ends and the worker leaves at once, in the middle of a job: what it
had saved is gone on with later.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def serve(load: Callable[[], Answer]) -> None:
    """Answer jobs until standard input ends; `load` imports what takes seconds and gives what answers."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log
    jobs: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        for line in sys.stdin.buffer:
            jobs.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    answer = load()
    while True:
        print(json.dumps(answer(json.loads(jobs.get()))), file=replies, flush=True)


def main() -> None:
    """Do the jobs of a study."""
    with ExitStack() as until_the_end:

        def load() -> Answer:
            from layerstill.acts.study import answer, quieten
            from layerstill.data.kept import Kept, keeping

            quieten()
            until_the_end.enter_context(keeping(Kept()))
            return answer

        serve(load)


if __name__ == "__main__":
    main()

"""A worker process: `python -m layerstill.acts.worker`. One JSON line a job in, one JSON line back.

It does many jobs, because importing torch takes seconds, and keeps the data that they share. When the study's process
is gone, however it went, standard input ends and the worker leaves at once, in the middle of a job: what it had saved
is gone on with later.
"""

import json
import os
import queue
import sys
import threading


def main() -> None:
    """Serve until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log
    jobs: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        for line in sys.stdin.buffer:
            jobs.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    from layerstill.acts.study import answer, quieten  # only now, for it takes seconds
    from layerstill.data.kept import Kept, keeping

    quieten()
    with keeping(Kept()):
        while True:
            print(json.dumps(answer(json.loads(jobs.get()))), file=replies, flush=True)


if __name__ == "__main__":
    main()

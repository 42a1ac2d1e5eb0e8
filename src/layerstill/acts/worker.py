"""A worker process: `python -m layerstill.acts.worker`. One JSON line a job in, one JSON line back.

It lives as long as the study, because importing torch takes seconds. When the study's process is gone, however it went,
standard input ends and the worker leaves at once, in the middle of a job: what it had saved is gone on with later.
"""

import json
import logging
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any

from layerstill.errors import UserError


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job: `error` is None or one line, `refused` whether the line is layerstill's own, and `seconds`."""
    from layerstill.acts.study import perform

    begun = time.perf_counter()
    error, refused = None, False
    try:
        perform(job)
    except UserError as problem:
        error, refused = " ".join(str(problem).split()), True
    except Exception as problem:  # a failed run is a record; the traceback is for the log
        traceback.print_exc()
        error = " ".join(f"{type(problem).__name__}: {problem}".split())
    return {"hash": job["hash"], "error": error, "refused": refused, "seconds": time.perf_counter() - begun}


def quieten() -> None:
    """No progress bars; notes of layerstill go to standard error, which is the worker's log."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("layerstill").setLevel(logging.INFO)


def answer_quietly(job: dict[str, Any]) -> dict[str, Any]:
    """`answer` in a process that others share."""
    quieten()
    return answer(job)


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
    quieten()
    while True:
        print(json.dumps(answer(json.loads(jobs.get()))), file=replies, flush=True)


if __name__ == "__main__":
    main()

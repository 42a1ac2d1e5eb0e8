"""A worker that does nothing but say which process it is: the program of `Worker` in tests of who does a job."""

import json
import os
import sys

for line in sys.stdin:
    job = json.loads(line)
    if job["ends"] == "dead":
        os._exit(3)
    error = None if job["ends"] == "well" else job["ends"]
    print(json.dumps({"error": error, "refused": error == "refused", "seconds": os.getpid()}), flush=True)

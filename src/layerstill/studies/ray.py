"""The same jobs on a Ray cluster whose machines see the same folders. Only this file imports ray."""

import os
from collections.abc import Callable
from typing import Any

from layerstill.errors import UserError
from layerstill.studies.job import Job
from layerstill.studies.pool import Reply, first_line

try:
    import ray
except ImportError:
    raise UserError("--ray: ray is not installed; pip install 'layerstill[ray]'") from None

Answer = Callable[[Job], dict[str, Any]]
"""Does a job and says what became of it: `error`, `refused` and `seconds`."""


def _answer_in(folder: str, answer: Answer, job: Job) -> dict[str, Any]:
    os.chdir(folder)  # paths are as the study has them
    return answer(job)


class RayPool:
    """Jobs as Ray tasks, `count` of them at a time over the cores of the whole cluster, each done by `answer`."""

    def __init__(self, address: str, count: int, answer: Answer) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a study tells nobody that it ran
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"--ray {address}: {first_line(error)}") from None
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)) // count)
        variables = {name: os.environ[name] for name in ("PYTHONPATH", "HF_HUB_OFFLINE") if name in os.environ}
        threads = {"OMP_NUM_THREADS": str(cores), "MKL_NUM_THREADS": str(cores)}
        environment = {"env_vars": variables | threads}
        self._remote = ray.remote(num_cpus=cores, max_retries=0, runtime_env=environment)(_answer_in)
        self._answer = answer
        self._folder = os.getcwd()

    async def perform(self, job: Job) -> Reply:
        """See `Pool.perform`."""
        try:
            reply = await self._remote.remote(self._folder, self._answer, job)
        except ray.exceptions.RayError as error:
            return Reply(f"ray: {first_line(error)}", False, 0.0)
        return Reply(reply["error"], reply["refused"], reply["seconds"])

    async def close(self) -> None:
        """See `Pool.close`."""
        ray.shutdown()

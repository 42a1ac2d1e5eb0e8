"""Kill runs at random moments, start them again with the same command, and count how many end bit-identically.

    python -m benchmarks.kill_campaign --kills 120

Half of the kills come just before a random file operation, half after a random time. Every second run that was killed
is killed once more before it may finish. Compared are all files of the run folder: weights, maps, `metrics.jsonl`,
and `result.json` without its times.
"""

import argparse
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

from tests.tiny import save_tiny, write_csv
from tests.training.forks import Forks, record, tear
from tests.training.test_kill import RECIPES, command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    forks = Forks()
    heading = "kills by stage reached (not begun, 1, 2, end)"
    print(f"{'recipe':10} {'kills':>6} {'runs':>5} {'identical':>10} {heading:>46}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        for recipe in RECIPES:
            campaign(forks, Path(place), recipe, options.kills // len(RECIPES), rng)
    forks.close()


def prepare(place: Path) -> None:
    save_tiny(place / "teacher")
    (place / "data").mkdir()
    write_csv(place / "data" / "train.csv", rows=21)
    write_csv(place / "data" / "dev.csv", rows=6, seed=1)


def campaign(forks: Forks, place: Path, recipe: str, wanted: int, rng: random.Random) -> None:
    whole = forks(command(place, recipe, place / recipe), folder=place / recipe)
    assert whole["status"] == 0, whole["err"]
    expected = record(place / recipe)
    begun = time.monotonic()  # of a second one, because the first has things to import
    forks(command(place, recipe, place / f"{recipe}-again"))
    seconds = 0.8 * (time.monotonic() - begun)  # later it is too late to kill
    assert record(place / f"{recipe}-again") == expected, "a run that is not killed is not the same twice"
    kills = runs = identical = 0
    where = [0, 0, 0, 0]
    while kills < wanted:
        folder = place / f"{recipe}-killed"
        shutil.rmtree(folder, ignore_errors=True)
        for _ in range(1 + runs % 2):
            moment = (
                {"at": rng.randint(1, whole["events"])} if rng.random() < 0.5 else {"seconds": rng.random() * seconds}
            )
            if forks(command(place, recipe, folder), folder=folder, **moment)["status"] != -signal.SIGKILL:
                break  # it had less to do than that
            kills += 1
            where[stage_reached(folder)] += 1
            tear(folder)
        done = forks(command(place, recipe, folder))
        runs += 1
        same = done["status"] == 0 and record(folder) == expected
        identical += same
        if not same:
            print(f"{recipe}: status {done['status']}, {done['err']}; kept in {keep(folder)}")
    print(f"{recipe:10} {kills:6} {runs:5} {identical:10} {', '.join(map(str, where)):>46}", flush=True)


def stage_reached(folder: Path) -> int:
    if (folder / "result.json").exists() or (folder / "model.safetensors").exists():
        return 3
    return len(list(folder.glob("checkpoints/stage-?")))


def keep(folder: Path) -> str:
    kept = Path(tempfile.mkdtemp()) / folder.name
    shutil.copytree(folder, kept)
    return str(kept)


if __name__ == "__main__":
    main()

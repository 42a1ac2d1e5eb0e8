"""Does intermediate-layer distillation overfit, and does the last layer alone end flatter? Claims C1, C2, C7."""

import statistics
from collections.abc import Callable

from benchmarks.claims.records import Records, spread
from benchmarks.claims.tables import Page, against, chance, comparisons, mean_cell, table

from layerstill.evaluation.comparison import Comparison, compare

Run = dict


def show(records: Records) -> str:
    """Scores, gaps and falls; the objectives by epoch; verdicts."""
    return "\n\n".join([chance(records), _scores(records), _objectives(records), comparisons(verdicts(records))])


def gap(run: Run) -> float:
    """Accuracy on a sample of train minus that on a sample of dev."""
    return float(run["gap"]["train"] - run["gap"]["dev"])


def fall(run: Run) -> float:
    """Accuracy on dev that weight noise costs, the mean over its lengths."""
    clean, *noisy = run["noise"]["dev"]
    return float(clean - statistics.mean(noisy))


def turn(run: Run, objective: str) -> float:
    """By what share of its lowest value an objective on dev has risen by the last epoch of the first stage."""
    values = [e["dev"][objective] for e in run["objectives"] if e["stage"] == 0]
    return float(values[-1] / min(values) - 1)


def _by_seed(records: Records, measure: Callable[[Run], float], **at: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for run in records.where(**at):
        found.setdefault(run["at"]["task"], {})[run["at"]["seed"]] = measure(run)
    return found


def _scores(records: Records) -> str:
    measures = {"less on dev than on train": gap, "lost to weight noise": fall}
    head = ["recipe", "layers", *records.tasks, *(f"{name}, {t}" for name in measures for t in records.tasks)]
    rows = []
    for arm in records.values("recipe"):
        for start in records.values("initialisation"):
            at = {"recipe": arm, "initialisation": start}
            cells = [mean_cell(records, t, **at) for t in records.tasks]
            cells += [spread(_by_seed(records, m, **at)[t]) for m in measures.values() for t in records.tasks]
            rows.append([arm, start, *cells])
    return table(head, rows)


def _objectives(records: Records) -> str:
    """Means over seeds, as shares of the first epoch's value."""
    rows = []
    for arm in ("u-ild", "l-ild"):
        for start in records.values("initialisation"):
            for task in records.tasks:
                runs = list(records.where(recipe=arm, initialisation=start, task=task))
                for name in ("attention", "hidden states"):
                    cells = [arm, start, task, name]
                    for split in ("train", "dev"):
                        curves = [[e[split][name] for e in run["objectives"] if e["stage"] == 0] for run in runs]
                        means = [statistics.mean(c[i] / c[0] for c in curves) for i in range(len(curves[0]))]
                        cells.append(", ".join(f"{m:.3f}" for m in means))
                    cells.append(f"{100 * statistics.mean(turn(run, name) for run in runs):.1f} %")
                    rows.append(cells)
    return table(["recipe", "layers", "task", "objective", "on train by epoch", "on dev", "dev above its lowest"], rows)


def verdicts(records: Records) -> Page:
    """What is compared, for which claim."""
    page = Page([])
    for start in records.values("initialisation"):

        def measured(a: str, b: str, measure: Callable[[Run], float], what: str, start: str = start) -> Comparison:
            sides = (_by_seed(records, measure, recipe=arm, initialisation=start) for arm in (a, b))
            return compare(f"{what} of {a} at {start}", b, *sides)

        at = {"initialisation": start}
        names = f"l-ild at {start}", "u-ild"
        page.rows.append(("C1", measured("u-ild", "kd", gap, "gap"), "higher"))
        page.rows.append(("C2", against(records, {"recipe": "l-ild"} | at, {"recipe": "u-ild"} | at, names), "higher"))
        page.rows.append(("C7", measured("u-ild", "l-ild", fall, "loss to noise"), "higher"))
    return page

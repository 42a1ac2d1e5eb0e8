"""The report as one HTML page that needs nothing but itself: no network, no other file."""

import itertools
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, get_args

from markupsafe import Markup

from layerstill.evaluation.rules import words
from layerstill.reporting import plots
from layerstill.reporting.arms import Cell, Findings, Ranking, rankings
from layerstill.reporting.card import Card, cards_of, rivals_of
from layerstill.reporting.command import NOT_RECORDED, command_of
from layerstill.reporting.curves import learning_curves
from layerstill.reporting.diagnostic_plots import diagnostics
from layerstill.reporting.family import one_family
from layerstill.reporting.figures import Section, by, comparison_plots, quality_and_cost
from layerstill.reporting.frame import asset, hash_of, page_environment
from layerstill.reporting.looks import Looks
from layerstill.reporting.models import Model, models_of
from layerstill.reporting.other_data import out_of_domain, regimes
from layerstill.reporting.overview import model_table, problem_table, run_names, run_table, win_table
from layerstill.reporting.runs import RunRecord, Status

PAGE_MARK = '<meta name="generator" content="layerstill report">'


def report_page(
    title: str,
    runs: Sequence[RunRecord],
    found: Sequence[Cell],
    findings: Findings,
    latency: Mapping[str, float] = {},
    latency_note: str = "",
    models: Sequence[Model] | None = None,
    cards: Sequence[Card] | None = None,
) -> str:
    """The page about `runs`, grouped as `found` and compared as `findings` says.

    `latency` is milliseconds by a run's name; `models` are those of `found` with their teachers and files, and `cards`
    what is said of them, if they are known already, all p-values being of one family. UserError without matplotlib.
    """
    plots.require_matplotlib()
    looks = Looks(found)
    if models is None or cards is None:
        models = models_of(found, looks, (), latency)
        findings, models, rivals = one_family(findings, models, rivals_of(models))
        cards = cards_of(models, rivals, findings.margin)
    students = [c for c in found if not c.is_teacher]
    cost = quality_and_cost(models, looks)
    cost.intro += latency_note
    sections = [
        _losses(models),
        _comparisons(findings, rankings(found)),
        cost,
        out_of_domain(found, looks),
        regimes(students, looks),
        learning_curves(found, looks),
        diagnostics(found, looks),
    ]
    number = itertools.count(1)
    environment = page_environment()
    # Drawn here from numbers and escaped names, by matplotlib.
    environment.filters["own_ids"] = lambda svg: Markup(plots.with_own_ids(svg, next(number)))
    style, script = (asset(name) for name in ("report.css", "report.js"))
    names = run_names(runs, found, looks)
    commands = [_configuration(c, looks) for c in found]
    return environment.get_template("report.html.j2").render(
        mark=Markup(PAGE_MARK),
        title=title,
        version=version("layerstill"),
        style=Markup(style),
        script=Markup(script),
        script_hash=hash_of(script),
        counts={status: count for status in get_args(Status) if (count := sum(r.status == status for r in runs))},
        cards=cards,
        results=model_table(models),
        one_seed=any(m.student and m.score.n == 1 for m in models),
        selected=any(run.selected != "last" for cell in found for run in cell.runs),
        sentences=[
            (str(setting), [words(c, margin=findings.margin) for _, c in of])
            for setting, of in by(findings.comparisons, _first).items()
        ],
        left_out=findings.left_out,
        sections=[s for s in sections if s.plots or s.tables or s.more],
        runs=run_table(runs, found, looks, latency),
        problems=problem_table(runs, names),
        not_recorded=NOT_RECORDED,
        configurations=commands,
    )


def _first(pair: tuple) -> Any:
    return pair[0]


def _losses(models: Sequence[Model]) -> Section:
    """What students lost to their teachers, with intervals over examples."""
    section = Section(
        "Against the teacher",
        "Each student minus its teacher on the same examples of dev (of several seeds their mean), with 95 % bootstrap "
        "intervals over examples. p-values are McNemar's exact test for accuracy and sign flips for other metrics, "
        "adjusted after Holm. They are about these models on other texts, not about other seeds.",
    )
    several = len({model.task for model in models}) > 1
    found = [
        (model.task if several else "", model.loss.comparison)
        for model in models
        if model.loss is not None and model.loss.comparison is not None
    ]
    section.plots = comparison_plots(found)
    return section


def _comparisons(findings: Findings, ranked: list[Ranking]) -> Section:
    section = Section("Differences and ranks", "The same comparisons as intervals; then who wins how often.")
    section.plots = comparison_plots([(str(setting), c) for setting, c in findings.comparisons])
    for ranking in ranked:
        title = f"Wins over blocks of a task and a seed ({ranking.setting})"
        if ranking.ranks:
            r = ranking.ranks
            title += (
                f"; {r.blocks} blocks, Friedman p = {r.p:.2g}, average ranks further apart than "
                f"{r.critical_difference:.2f} differ (Nemenyi, 5 %)"
            )
        section.tables.append((title, win_table(ranking)))
    return section


def _configuration(cell: Cell, looks: Looks) -> dict[str, Any]:
    """What a cell's runs were told, and the commands that make them again."""
    recipe = next((text for run in cell.runs if (text := run.text("recipe.yaml"))), None)
    versions = sorted({", ".join(f"{k} {v}" for k, v in run.checked.environment.items()) for run in cell.runs})
    commands = [command for run in cell.runs if (command := command_of(run))]
    regime = "" if cell.setting.regime == "full" or cell.setting.regime in looks.name(cell) else cell.setting.regime
    return {
        "title": ", ".join(filter(None, (cell.task, looks.name(cell), regime))),
        "setting": str(cell.setting),
        "recipe": recipe,
        "commands": [command.line for command in commands],
        "notes": list(dict.fromkeys(note for command in commands for note in command.notes)),
        "regime": cell.runs[0].checked.regime,
        "versions": [text for text in versions if text],
    }

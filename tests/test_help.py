"""What the command line says of itself: the helps of every verb, what is misspelt, and how little is loaded for it."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import typer

from layerstill.cli import START, app
from layerstill.commands.recipes import recipes_app
from layerstill.data.glue import GLUE
from layerstill.heads import HEADS
from layerstill.names import DEMO_TASK, ELSEWHERE, NOT_HERE, OWN_TASKS, TEXT_TASK, task_names
from tests.test_lazy import HEAVY, python

TOP = typer.main.get_command(app)


def verbs(group=TOP, prefix=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command, (*prefix, name))
        else:
            yield " ".join((*prefix, name)), command


VERBS = dict(verbs())
every_verb = pytest.mark.parametrize("verb", VERBS)


@pytest.fixture
def helps(call, monkeypatch):
    def read(words: str, columns: int = 100) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        status, out, err = call(words)
        assert (status, err) == (0, "")
        return out

    return read


def options(command):
    return [option for option in command.params if option.param_type_name == "option" and not option.hidden]


@every_verb
def test_every_option_has_a_help_text_and_stands_in_help_all(verb, helps):
    shown = helps(f"{verb} --help-all")
    for option in options(VERBS[verb]):
        assert len(option.help or "") > 8, option.name
        assert re.search(rf"{option.opts[0]}\b", shown), option.name
        if isinstance(option.default, int | float) and not option.is_flag:
            assert f"[default: {option.default}]" in shown, option.name


def test_every_argument_is_declared_with_a_help_text():
    for declared in [*app.registered_commands, *recipes_app.registered_commands]:
        for one in inspect.signature(declared.callback).parameters.values():
            (settings,) = one.annotation.__metadata__
            assert settings.hidden or len(settings.help) > 8, (declared.callback, one.name)


@every_verb
def test_help_has_first_what_a_beginner_needs_and_leaves_out_the_rest(verb, helps):
    short, long = helps(f"{verb} --help"), helps(f"{verb} --help-all")
    special = [option for option in options(VERBS[verb]) if option.rich_help_panel is not None]
    basic = [option for option in options(VERBS[verb]) if option.rich_help_panel is None]
    for option in basic:
        assert f" {option.opts[0]} " in short, option.name
    named = [option.opts[0] for option in special if re.search(rf"│ .{{0,3}}{option.opts[0]} ", short)]
    if len(special) > 3:
        assert named == []
        assert f"Show every option: {len(special)} more." in short
        assert len(short.splitlines()) < len(long.splitlines())
    else:
        assert len(named) == len(special)
    assert all(not option.required or option.rich_help_panel is None for option in options(VERBS[verb]))


@pytest.mark.parametrize("verb", ["", "recipes", *VERBS])
def test_no_line_of_a_help_is_wider_than_100_columns_or_cut(verb, helps):
    for words in ("--help", "--help-all") if verb in VERBS else ("--help",):
        for columns in (100, 240):
            lines = helps(f"{verb} {words}", columns).splitlines()
            assert max(map(len, lines)) <= 100
            assert "…" not in "".join(lines)
    assert max(map(len, helps(f"{verb} --help", 80).splitlines()[:-2])) <= 80


@every_verb
def test_help_ends_with_an_example_that_the_verb_can_read(verb, helps):
    last = helps(f"{verb} --help").strip().splitlines()[-1].strip()
    assert helps(f"{verb} --help-all").strip().splitlines()[-1].strip() == last
    words = shlex.split(last.split(" > ")[0])
    assert words[: 1 + len(verb.split())] == ["layerstill", *verb.split()]
    VERBS[verb].make_context(verb, words[1 + len(verb.split()) :])  # refuses what it does not know and what is missing


def test_the_bare_command_is_a_friendly_start(call):
    status, out, err = call("")
    assert (status, err) == (0, "")
    assert out == START + "\n"
    lines = out.splitlines()
    assert 8 <= len(lines) <= 14
    assert max(map(len, lines)) <= 110
    for command in [line.strip() for line in lines if line.startswith("  layerstill ")]:
        words = shlex.split(command)
        TOP.commands[words[1]].make_context(words[1], words[2:])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("distil", "No such command 'distil': did you mean 'distill'? known: finetune, compress,"),
        ("sing", "No such command 'sing': known: "),
        ("recipes shw", "No such command 'shw': did you mean 'show'? known: list, show"),
        ("--verson", "No such option: --verson; did you mean --version?"),
        ("distill --recip kd", "No such option: --recip; did you mean --recipe?"),
        ("distill --learning_rate 3", "No such option: --learning_rate; did you mean --learning-rate?"),
        ("distill --lr 3", "did you mean --learning-rate?"),
        ("distill --layers 3", "did you mean --student-layers?"),
        (
            "distill teacher --task clasification --output o",
            "unknown task 'clasification': did you mean 'classification'?",
        ),
        ("distill teacher --task NER --output o", "unknown task 'NER': here it is called 'tokens'"),
        ("distill teacher --task sst2 --recipe rail --output o", "unknown recipe 'rail': did you mean 'rail-kd-l'?"),
        ("report --xyzzy", "No such option: --xyzzy (see --help)"),
    ],
)
def test_what_is_misspelt_is_answered_with_the_nearest(words, message, call):
    status, out, err = call(words)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.fixture(scope="module")
def by_typer():
    """What typer imports by itself, which older ones do with rich."""
    return {name.split(".")[0] for name in python("import sys, typer; print(*sys.modules)").split()}


SPY = """
import json, sys
path = sys.argv.pop(1)
sys.argv[0] = "layerstill"
from layerstill.cli import main
try:
    main()
finally:
    with open(path, "w") as file:
        json.dump(sorted(sys.modules), file)
"""


@pytest.mark.parametrize(
    ("words", "status", "most", "rich"),
    [
        ("--version", 0, 400, False),
        ("", 0, 400, False),
        ("distil", 2, 400, False),
        ("distill --recip kd", 2, 400, False),
        ("distill teacher --task clasification --output o", 2, 400, False),
        ("distill teacher --task sst2 --recipe kdd --output o", 2, 400, False),
        ("recipes show kdd", 2, 400, False),
        ("recipes list", 0, 400, False),
        ("recipes show kd", 0, 400, False),
        ("--help", 0, 600, True),
        ("distill --help", 0, 600, True),
        ("distill --help-all", 0, 600, True),
    ],
)
def test_what_needs_no_model_loads_nothing_heavy(words, status, most, rich, by_typer, tmp_path):
    done = subprocess.run([sys.executable, "-c", SPY, tmp_path / "loaded", *shlex.split(words)], capture_output=True)
    assert done.returncode == status
    loaded = json.loads((tmp_path / "loaded").read_text())
    roots = {name.split(".")[0] for name in loaded}
    assert roots & set(HEAVY) <= {"pydantic"}  # typer of today reads arguments with it
    assert rich or "rich" not in roots - by_typer
    assert len(loaded) <= most


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "layerstill", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0.1.0\n", "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("comp", ["compress"]),
        ("distill teacher --recipe rail", ["rail-kd-c", "rail-kd-l"]),
        ("recipes show tiny", ["tinybert"]),
        ("finetune model --task c", ["classification", "cola"]),
        ("distill teacher --few", ["--few-samples"]),
        ("distill teacher --task nonsense --reci", ["--recipe"]),
    ],
)
def test_the_shell_completes_verbs_options_recipes_and_tasks(words, found):
    spoken = ["layerstill", *words.split()]
    told = {"COMP_WORDS": " ".join(spoken), "COMP_CWORD": str(len(spoken) - 1), "_LAYERSTILL_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "layerstill"], capture_output=True, text=True, env=dict(os.environ) | told
    )
    assert (done.stdout.split(), done.stderr) == (found, "")


def test_the_names_that_are_known_without_torch_are_those_that_work():
    assert set(task_names()) == {*HEADS, *GLUE, TEXT_TASK, DEMO_TASK}
    assert set(ELSEWHERE.values()) <= {*HEADS, TEXT_TASK}
    assert list(HEADS) == list(OWN_TASKS)
    assert set(ELSEWHERE).isdisjoint(task_names())
    assert set(NOT_HERE).isdisjoint({*ELSEWHERE, *task_names()})


def test_a_task_that_is_not_done_here_is_called_that(call):
    status, _, err = call("finetune model --task question_answering --data x --output out")
    assert status == 2
    assert "unknown task 'question_answering': layerstill does not do question answering; known: " in err

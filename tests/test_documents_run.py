"""What README and the pages say to type can be typed: commands parse, those without a language run, Python runs."""

import ast
import importlib
import re

import pytest
import typer
from transformers import AutoModelForSequenceClassification

from layerstill.cli import app
from tests.documents import DOCUMENTS, PAGES, ROOT, anchors, blocks, commands, links, words
from tests.tiny import save_tiny, save_tiny_masked_lm

README, GUIDE = ROOT / "README.md", ROOT / "docs" / "guide.md"
ROOT_COMMAND = typer.main.get_command(app)
COMMANDS = [
    pytest.param(command, id=f"{document.name}: {command[:60]}")
    for document in DOCUMENTS
    for _, code in blocks(document.read_text("utf-8"))
    for command in commands(code)
]


def parse(given: list[str]) -> None:
    """Parse a command as the command line does, and do nothing with it; typer's error for what it does not take."""
    command, context = ROOT_COMMAND, None
    name = "layerstill"
    while hasattr(command, "get_command"):
        context = context or command.make_context("layerstill", [], resilient_parsing=True)
        name, *given = given
        found = command.get_command(context, name)
        assert found is not None, f"no verb {name}"
        command = found
    command.make_context(name, list(given), parent=context)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_in_a_block_is_one_that_the_command_line_takes(command):
    given = words(command)
    if "..." in given:  # an excerpt: the rest of its words must exist
        known = options_of(given[0])
        assert {word for word in given if word.startswith("--")} <= known
        return
    parse(given)


def options_of(verb: str) -> set[str]:
    context = ROOT_COMMAND.make_context("layerstill", [], resilient_parsing=True)
    command = ROOT_COMMAND.get_command(context, verb)
    assert command is not None, f"no verb {verb}"
    return {name for option in command.params for name in option.opts} | {"--help"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_verb_and_option_in_running_text_exists(document):
    """Code spans that begin with `layerstill`."""
    verbs = set(ROOT_COMMAND.list_commands(None))
    for span in re.findall(r"`layerstill ([^`]*)`", document.read_text("utf-8").replace("\n", " ")):
        verb, *rest = span.replace("...", " ").split() or [""]
        if verb in {"", "VERB", "alone"} or verb.startswith("--"):
            continue
        assert verb in verbs, span
        if verb != "recipes":
            assert {word.split("=")[0] for word in rest if word.startswith("--")} <= options_of(verb) | {"--help-all"}


def test_these_tests_have_something_to_look_at():
    assert len(COMMANDS) > 40
    with pytest.raises(Exception, match="No such option"):
        parse(["evaluate", "student", "--latancy"])
    with pytest.raises(Exception, match="task"):
        parse(["distill", "teacher", "--output", "student"])
    with pytest.raises(AssertionError, match="no verb"):
        parse(["distil", "teacher"])
    assert "the-main-job" in anchors(GUIDE.read_text("utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(document):
    for to in links(document.read_text("utf-8")):
        name, _, heading = to.partition("#")
        target = document if not name else document.parent / name
        assert target.exists(), to
        if heading:
            assert heading in anchors(target.read_text("utf-8")), to


def test_every_page_can_be_reached_from_the_readme():
    seen, ahead = set(), [README]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        near = {(page.parent / to.partition("#")[0]).resolve() for to in links(page.read_text("utf-8"))}
        ahead += [one for one in near if one.suffix == ".md" and one not in seen]
    assert set(PAGES) <= seen


PYTHON = [
    pytest.param(code, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, (language, code) in enumerate(blocks(document.read_text("utf-8")))
    if language == "python"
]


@pytest.mark.parametrize("code", PYTHON)
def test_python_in_documents_compiles_and_imports_what_exists(code):
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "layerstill":
            assert hasattr(importlib.import_module("layerstill"), node.attr), ast.unparse(node)


@pytest.mark.parametrize("document", [README, GUIDE], ids=lambda path: path.name)
def test_blocks_without_a_language_and_python_run_as_they_are_written(document, call, tmp_path, monkeypatch):
    """In a folder with models, GLUE's MRPC in `glue`, own mails and sentences, on tiny models and files."""
    save_tiny(tmp_path / "MODEL", positions=160, width=240, intermediate_size=960)
    save_tiny_masked_lm(tmp_path / "bert-base-uncased", positions=160)
    (tmp_path / "sentences.txt").write_text("good film\nthe plot was poor\n", "utf-8")
    (tmp_path / "glue" / "MRPC").mkdir(parents=True)
    rows = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    rows += [f"{i % 2}\t1\t2\tgood film\t{['bad plot', 'great film'][i % 2]}" for i in range(8)]
    for split in ("train", "dev"):
        (tmp_path / "glue" / "MRPC" / f"{split}.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    mails = ["subject,body,team"] + [f"film {i},{'good' if i % 2 else 'bad'} plot,{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "mails.csv").write_text("\n".join(mails) + "\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text((ROOT / "src/layerstill/recipes/rail-kd-l.yaml").read_text("utf-8"), "utf-8")
    written = blocks(document.read_text("utf-8"))
    given = [command for language, code in written if not language for command in commands(code)]
    assert len(given) >= 4
    for command in given:
        status, _, err = call(words(command))
        # On four texts a file may well lose more than a point, and export then says so by its status.
        assert status == 0 or (status == 1 and command.startswith("export ") and "not fit" in err), f"{command}: {err}"
    rows = {"text": ["good film", "bad plot"] * 8, "label": ["shipping", "account"] * 8}
    frame = pytest.importorskip("pandas").DataFrame(rows)
    routing = save_tiny(tmp_path / "routing", layers=6, labels=2, names=["account", "shipping"], positions=160)
    names = {"train_frame": frame, "dev_frame": frame}
    names["model"] = AutoModelForSequenceClassification.from_pretrained(routing)
    snippets = [code for language, code in written if language == "python"]
    assert len(snippets) >= 2
    for code in snippets:
        exec(compile(code, document.name, "exec"), dict(names))


def test_the_readme_names_make_targets_that_exist():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text("utf-8")
        named = re.findall(r"(?:^|`)make ([a-z]+)", text, flags=re.MULTILINE)
        assert {"test"} <= set(named) <= set(targets)

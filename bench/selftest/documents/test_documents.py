"""Documents are true: every command is run by a test or by CI, every link has a target, every option exists."""

import ast
import os
import re
import shlex
import tomllib
from collections.abc import Iterator

import pytest

from bench.selftest.documents.markdown import ROOT, anchors, code, commands, documents, inline_code, links, prose

DOCUMENTS = documents()
COMMANDS = {command for text in DOCUMENTS.values() for command in commands(text)}
# The commands of `.ci/run`, without comments.
CI = [line.strip().removesuffix(" &") for line in (ROOT / ".ci" / "run").read_text().splitlines()]

# Files whose tests want extras that line two does not install.
EXTRAS = {"test_real_models.py"}

each_document = pytest.mark.parametrize("name", DOCUMENTS)


def called_with(*functions: str) -> Iterator[str]:
    """Yield the texts that tests call some functions with, as their first argument.

    A call counts within a test that is not skipped, a fixture, or a function that the file uses.
    """
    for file in ROOT.glob("bench/**/test_*.py"):
        source = file.read_text()
        if not any(function in source for function in functions):
            continue
        tree = ast.parse(source)
        texts = {
            ast.unparse(node.targets[0]): node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        }
        for function in tree.body:
            if isinstance(function, ast.FunctionDef) and is_run(function, source):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
                        argument = node.args[0]
                        argument = texts.get(argument.id, argument) if isinstance(argument, ast.Name) else argument
                        yield from [str(argument.value)] if isinstance(argument, ast.Constant) else []


def is_run(function: ast.FunctionDef, source: str) -> bool:
    """Tell whether pytest runs a function of a test file, or other code of the file does."""
    decorators = [ast.unparse(one) for one in function.decorator_list]
    if any(re.search(r"mark\.skip\b", one) for one in decorators):
        return False
    return function.name.startswith("test_") or len(re.findall(rf"\b{function.name}\b", source)) > 1


def run_by_ci(command: str) -> bool:
    """Tell whether `.ci/run` runs a command: as it stands, with more options, or as part of line two."""
    if command in commands(DOCUMENTS["README.md"])[:2] or command == ".ci/run":
        return True
    if command.startswith("pip install "):
        installed = [one for line in CI if line.startswith("pip install ") for one in requirements(line)]
        return set(requirements(command)) <= set(installed)
    words = [word for word in command.split() if word != "-q"]
    if words[0] == "pytest" and words[1:] != ["bench"] and all(is_in_line_two(word) for word in words[1:]):
        return True
    # Of two commands that a line begins with, it is the longer one.
    run = [max((one for one in COMMANDS if f"{line} ".startswith(f"{one} ")), key=len, default="") for line in CI]
    return command in run


def is_in_line_two(path: str) -> bool:
    """Tell whether line two of the README runs the tests of a path. It skips those of `EXTRAS`."""
    place = ROOT / path.partition("::")[0]
    tests = [place] if place.is_file() else list(place.rglob("test_*.py"))
    return bool(tests) and path.startswith(("bench/", "model")) and not {test.name for test in tests} <= EXTRAS


def requirements(line: str) -> list[str]:
    """Return what a `pip install` names: packages, and extras as `[NAME]`."""
    words = [word for word in shlex.split(line)[2:] if word[0] != "-"]
    found = []
    for word in words:
        extras = re.fullmatch(r"\.\[(.*)\]", word)
        found += [f"[{extra}]" for extra in extras[1].split(",")] if extras else [word]
    return found


def test_every_command_is_run() -> None:
    run_by_tests = set(called_with("documented", "documented_options", "typed"))
    assert {command for command in COMMANDS if not run_by_ci(command)} - run_by_tests == set()
    assert run_by_tests <= COMMANDS


def test_ci_runs_what_line_two_skips() -> None:
    for line in (
        "pytest bench/conformance/test_real_models.py",
        "pytest bench/selftest/documents/test_walkthroughs.py",
    ):
        assert any(one.startswith(line) for one in CI), line
    assert "hugging_face" in " ".join(CI)


def test_every_extra_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*CI, *COMMANDS, *(one for text in DOCUMENTS.values() for one in inline_code(text))]
    named = {extra for line in lines for found in re.findall(r"\.\[([\w,-]+)\]", line) for extra in found.split(",")}
    assert named <= project["optional-dependencies"].keys()


@each_document
def test_a_command_is_in_a_block_of_commands(name: str) -> None:
    """And not in a block of another kind, where no test would find it."""
    text = DOCUMENTS[name]
    left = prose(text)
    assert not re.search(r"```|~~~|<pre|^[ >]*\$ |\n\n {4,}[^ -]", left)
    assert set(re.findall(r"^```(\w+)", text, re.MULTILINE)) <= {"sh", "text", "python", "yaml"}
    printed = [line for block in code(text, "text") for line in block.splitlines()]
    assert [line for line in printed if re.match(r"(\$|%|>>>) |(pytest|pip|python\d?|torchrun) ", line)] == []


def test_all_python_code_is_run() -> None:
    assert {name for name, text in DOCUMENTS.items() if code(text, "python")} == set(called_with("snippets"))


@each_document
def test_the_steps_of_a_workflow_name_inputs_of_the_action(name: str) -> None:
    action = (ROOT / ".github" / "actions" / "measure" / "action.yml").read_text()
    inputs = re.findall(r"^  (\w+):$", action.partition("\ninputs:\n")[2].partition("\nruns:")[0], re.MULTILINE)
    for block in code(DOCUMENTS[name], "yaml"):
        used, given = re.split(r"/\.github/actions/measure@main\n +with:\n", block)
        assert used.endswith("- uses: OWNER/REPOSITORY")
        assert {"model"} <= set(re.findall(r"^ +(\w+): ", given, re.MULTILINE)) <= set(inputs)


@each_document
def test_a_command_in_a_sentence_is_one_of_the_blocks(name: str) -> None:
    """Or the start of one, or names another run."""
    tools = r"(\$ |\w+=\S+ )*(pytest|pytest-benchmark|pip|python[\d.]*|torchrun|ruff|mypy|\.ci/run) "
    shown = [one for one in inline_code(DOCUMENTS[name]) if re.match(tools, one)]
    for command in shown:
        start = re.sub(r"(--benchmark-compare)=\d+$", r"\1", command)
        assert any(f"{one} ".startswith(f"{start} ") for one in COMMANDS), command


@each_document
def test_every_option_exists(name: str, pytestconfig: pytest.Config) -> None:
    known = {option for action in pytestconfig._parser.optparser._actions for option in action.option_strings}
    command_line = (ROOT / "bench" / "report" / "__main__.py").read_text()
    theirs = {"--check", "--standalone", "--nproc-per-node", "--nnodes", "--no-python", "--storage", "--dist"}
    theirs |= {"--local-dir"}
    text = re.sub(r"<!--.*?-->", "", DOCUMENTS[name], flags=re.DOTALL)
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert {one for one in used - known - theirs if f'"{one}"' not in command_line} == set()


def document_of(name: str, link: str) -> str:
    """Return the path that a link in a document leads to, from the root; GitHub shows the README of a folder."""
    path = link.partition("#")[0]
    target = (ROOT / name).parent / path if path else ROOT / name
    target = target / "README.md" if (target / "README.md").exists() else target
    return os.path.relpath(target.resolve(), ROOT.resolve())


@each_document
def test_every_link_has_a_target(name: str) -> None:
    for link in links(DOCUMENTS[name]):
        if re.match(r"\w+:", link):
            assert link.startswith("https://"), link
            continue
        target, anchor = document_of(name, link), link.partition("#")[2]
        assert (ROOT / target).exists(), link
        assert not target.startswith("results/report"), f"{link} is there after a run only"
        if anchor and target in DOCUMENTS:
            assert anchor in anchors(DOCUMENTS[target]), link


@each_document
def test_every_link_is_written_in_the_way_that_is_checked(name: str) -> None:
    assert not re.search(r"^\[[^\]]+\]:|(href|src)=", prose(DOCUMENTS[name]), re.MULTILINE)


def test_the_readme_leads_to_every_document() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        names = {document_of(name, link) for link in links(DOCUMENTS[name]) if ":" not in link}
        waiting += (names & DOCUMENTS.keys()) - reached - set(waiting)
    assert reached == DOCUMENTS.keys()


def test_the_readme_is_short() -> None:
    readme = DOCUMENTS["README.md"]
    assert len(readme.splitlines()) <= 200
    assert len(readme.split()) <= 2000


def test_every_folder_is_named() -> None:
    rooms = {file.parent.name for file in ROOT.glob("bench/*/__init__.py")}
    assert {room for room in rooms if f"{room}/" not in " ".join(DOCUMENTS.values())} == set()

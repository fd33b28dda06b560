"""Documents are true: every command is run by a test or by CI, every link has a target, every option exists."""

import ast
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.cases.options import OPTIONS, help_text
from bench.conformance.properties import PROPERTIES
from bench.documents.markdown import ROOT, anchors, code, commands, documents, inline_code, links, prose
from bench.history.options import OPTIONS as HISTORY_OPTIONS
from bench.history.record import FIELDS
from bench.report.table import COLUMNS
from bench.strategies import STRATEGIES
from bench.strategies.sharded import SHARDED
from bench.versus.session import OPTIONS as VERSUS_OPTIONS
from model.checkpoints import Specification
from model.gpt2 import SIZES

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
    for line in ("pytest bench/conformance/test_real_models.py", "pytest bench/documents/test_walkthroughs.py"):
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
    assert set(re.findall(r"^```(\w+)", text, re.MULTILINE)) <= {"sh", "text", "python"}
    printed = [line for block in code(text, "text") for line in block.splitlines()]
    assert [line for line in printed if re.match(r"(\$|%|>>>) |(pytest|pip|python\d?|torchrun) ", line)] == []


def test_all_python_code_is_run() -> None:
    assert {name for name, text in DOCUMENTS.items() if code(text, "python")} == set(called_with("snippets"))


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
    theirs = {"--check", "--standalone", "--nproc-per-node", "--nnodes", "--storage", "--dist"}
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


def table(name: str, heading: str) -> list[list[str]]:
    """Return the rows of the tables of a document whose first column has a heading, without backticks."""
    found: list[list[str]] = []
    inside = False
    for line in DOCUMENTS[name].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        inside = bool(cells) and (inside or cells[0] == heading)
        if inside and cells[0] != heading and not set(cells[0]) <= set("-: "):
            found.append([cell.replace("`", "") for cell in cells])
    return found


def test_every_option_is_in_the_table() -> None:
    options = (*OPTIONS, *HISTORY_OPTIONS, *VERSUS_OPTIONS)
    rows = [
        [f"{name} {metavar}" if metavar else name, help_text((name, default, metavar, meaning))]
        for name, default, metavar, meaning in options
    ]
    printed = "\n".join(f"| `{name}` | {text} |" for name, text in rows)
    assert table("bench/README.md", "option") == rows, f"the table should be\n{printed}"


def test_every_property_is_in_the_table() -> None:
    rows = [[one.name, one.meaning] for one in PROPERTIES.values()]
    assert table("bench/conformance/README.md", "column") == rows


def test_the_conformance_tables_say_what_the_strategies_promise() -> None:
    text = DOCUMENTS["bench/conformance/README.md"]
    said: dict[tuple[str, str], str] = {}
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        if lines[0][0] == "strategy":
            said |= {
                (line[0], name): cell for line in lines[2:] for name, cell in zip(lines[0][1:], line[1:], strict=True)
            }
    promised = {}
    for strategy in STRATEGIES.values():
        for row in PROPERTIES.values():
            refused = row.name in strategy.refused("cpu") or not row.fits
            read = row.layout in (None, *strategy.layouts)
            promised[strategy.name, row.name] = ("refused" if refused else "ok") if read else "-"
    assert said == promised


def test_every_size_is_in_the_table() -> None:
    rows = {row[0]: row[1:] for row in table("model/README.md", "size")}
    assert rows.keys() == SIZES.keys()
    for size in SIZES:
        specification = Specification(size, "float32", "torch")
        footprint = specification.footprint
        assert rows[size][1:] == [f"{footprint.state_bytes:,}", f"{footprint.largest_tensor_bytes:,}"]
        # Building gpt3 takes seconds.
        if size != "gpt3":
            with torch.device("meta"):
                parameters = sum(one.numel() for one in specification.build().parameters())
            assert rows[size][0] == f"{parameters:,}"


def test_every_column_and_field_is_explained() -> None:
    columns = {one.strip() for row in table("bench/report/README.md", "column") for one in row[0].split(",")}
    assert columns == {"strategy", "size", "verdict", *(short for short, *_ in COLUMNS)}
    fields = {one.strip() for row in table("results/README.md", "field") for one in row[0].split(",")}
    assert fields == set(FIELDS)


def test_the_readme_explains_the_columns_of_its_table() -> None:
    heading = next(line for line in DOCUMENTS["README.md"].splitlines() if line.startswith("strategy "))
    shown = [name for name in re.split(r" {2,}", heading) if name not in ("strategy", "size")]
    assert [row[0] for row in table("README.md", "heading")] == shown


def test_every_recorded_run_is_described() -> None:
    described = {number for row in table("results/README.md", "run") for number in re.findall(r"\d{4}", row[0])}
    committed = {file.name[:4] for file in ROOT.glob("results/*/0*.json") if file.name[:4] <= max(described)}
    assert described == committed


def test_every_folder_is_named() -> None:
    rooms = {file.parent.name for file in ROOT.glob("bench/*/__init__.py")}
    assert {room for room in rooms if f"{room}/" not in " ".join(DOCUMENTS.values())} == set()


def bounds(name: str, *columns: int) -> dict[str, list[str]]:
    """Return some columns of a document's table of strategies, by the name of the strategy."""
    found: dict[str, list[str]] = {}
    for row in table(name, "strategy"):
        strategy, _, link = row[0].strip("[").partition("]")
        assert strategy not in found
        assert strategy.startswith(Path(link.strip("()")).stem)
        found[strategy] = [row[column] for column in columns]
    return found


def test_the_bounds_are_those_that_are_asserted() -> None:
    stated = {one.name: one for one in STRATEGIES.values()}
    # The ring has 64 MiB.
    assert bounds("README.md", 1, 2) == {
        name: [one.device, one.host.replace("R", "64 MiB")] for name, one in stated.items()
    }
    mapped = ", and S file-backed"
    assert bounds("bench/strategies/README.md", 2, 3, 4) == {
        name: [
            one.device,
            one.host + mapped * (one.file == "S") + ", page-locked" * (one.pinned == "R"),
            one.one_pool + mapped * (one.file == "S"),
        ]
        for name, one in stated.items()
    }
    files = {"0": "", "S | 0": ", and S file-backed in rank 0", "T": ", and file-backed pages with its shards"}
    assert bounds("bench/strategies/sharded/README.md", 2, 3) == {
        one.name: [one.device, one.host + files[one.file]] for one in SHARDED.values()
    }

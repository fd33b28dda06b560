"""Documents are true: every command is run by a test or by CI, every link has a target, every option exists."""

import ast
import re
from collections.abc import Iterator

import pytest
import torch

from bench.cases.options import OPTIONS, help_text
from bench.conformance.properties import PROPERTIES
from bench.documents.markdown import ROOT, anchors, code, commands, documents, inline_code, languages, links
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
CI = (ROOT / ".ci" / "run").read_text()

each_document = pytest.mark.parametrize("name", DOCUMENTS)


def called_with(*functions: str) -> Iterator[str]:
    """Yield the texts that tests call some functions with, as their first argument."""
    for file in ROOT.glob("bench/**/test_*.py"):
        source = file.read_text()
        if any(function in source for function in functions):
            nodes = list(ast.walk(ast.parse(source)))
            texts = {
                ast.unparse(node.targets[0]): node.value
                for node in nodes
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            }
            for node in nodes:
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
                    argument = node.args[0]
                    argument = texts.get(argument.id, argument) if isinstance(argument, ast.Name) else argument
                    yield from [str(argument.value)] if isinstance(argument, ast.Constant) else []


def run_by_ci(command: str) -> bool:
    """Tell whether `.ci/run` runs a command: as it stands, with more options, or as part of line two."""
    if command in commands(DOCUMENTS["README.md"])[:2] or command == ".ci/run":
        return True
    words = command.split()
    if words[:2] == ["pip", "install"]:
        installed = [extra for line in re.findall(r"pip install .*", CI) for extra in requirements(line)]
        return set(requirements(command)) <= set(installed)
    if words[0] == "pytest" and all((ROOT / word).exists() and word != "bench" for word in words[1:] if word != "-q"):
        return True
    return any(line.strip().startswith(command) for line in CI.splitlines())


def requirements(line: str) -> list[str]:
    """Return the extras and packages that a `pip install` names."""
    words = line.partition("pip install ")[2].replace("'", "").split()
    return [one for word in words if word[0] != "-" for one in re.sub(r"^\.\[(.*)\]$", r"\1", word).split(",")]


def test_every_command_is_run() -> None:
    run_by_tests = set(called_with("documented", "documented_options", "typed"))
    assert {command for command in COMMANDS if not run_by_ci(command)} - run_by_tests == set()
    assert run_by_tests <= COMMANDS


@each_document
def test_a_command_is_in_a_block_of_commands(name: str) -> None:
    """And not in a block of another kind, where no test would find it."""
    text = DOCUMENTS[name]
    assert languages(text) <= {"sh", "text", "python"}
    printed = [line for block in code(text, "text") for line in block.splitlines()]
    assert [line for line in printed if re.match(r"(\$|%|>>>) |(pytest|pip|python\d?|torchrun) ", line)] == []


def test_all_python_code_is_run() -> None:
    assert {name for name, text in DOCUMENTS.items() if code(text, "python")} == set(called_with("snippets"))


@each_document
def test_a_command_in_a_sentence_is_one_of_the_blocks(name: str) -> None:
    """Or the start of one, or the start of one with another value."""
    shown = [one for one in inline_code(DOCUMENTS[name]) if re.match(r"(pytest|pip|python\d?|torchrun) ", one)]
    known = {*COMMANDS, "pytest bench", *(command.rpartition(" ")[0] for command in COMMANDS)}
    for command in shown:
        start = command.partition("=")[0]
        assert any(one.startswith((command, start)) for one in known), command


@each_document
def test_every_option_exists(name: str, pytestconfig: pytest.Config) -> None:
    known = {option for action in pytestconfig._parser.optparser._actions for option in action.option_strings}
    command_line = (ROOT / "bench" / "report" / "__main__.py").read_text()
    theirs = {"--check", "--standalone", "--nproc-per-node", "--nnodes", "--storage", "--dist"}
    text = re.sub(r"<!--.*?-->", "", DOCUMENTS[name], flags=re.DOTALL)
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert {one for one in used - known - theirs if f'"{one}"' not in command_line} == set()


@each_document
def test_every_link_has_a_target(name: str) -> None:
    for link in links(DOCUMENTS[name]):
        path, _, anchor = link.partition("#")
        if "://" in link:
            assert path.startswith("https://"), link
            continue
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            document = target.resolve().relative_to(ROOT.resolve()).as_posix()
            assert anchor in anchors(DOCUMENTS[document]), link


def test_the_readme_leads_to_every_document() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        targets = [
            (ROOT / name).parent / link.partition("#")[0] for link in links(DOCUMENTS[name]) if "://" not in link
        ]
        names = {target.resolve().relative_to(ROOT.resolve()).as_posix() for target in targets}
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
    # Building gpt3 takes seconds.
    for size in SIZES.keys() - {"gpt3"}:
        specification = Specification(size, "float32", "torch")
        with torch.device("meta"):
            parameters = sum(one.numel() for one in specification.build().parameters())
        footprint = specification.footprint
        counts = (parameters, footprint.state_bytes, footprint.largest_tensor_bytes)
        assert rows[size] == [f"{count:,}" for count in counts]


def test_every_column_and_field_is_explained() -> None:
    columns = {one.strip() for row in table("bench/report/README.md", "column") for one in row[0].split(",")}
    assert columns == {"strategy", "size", "verdict", *(short for short, *_ in COLUMNS)}
    fields = {one.strip() for row in table("results/README.md", "field") for one in row[0].split(",")}
    assert fields == set(FIELDS)


def bounds(name: str, *columns: int) -> dict[str, list[str]]:
    """Return some columns of a document's table of strategies, by the name of the strategy."""
    rows = {row[0].strip("[").partition("]")[0]: row for row in table(name, "strategy")}
    return {strategy: [row[column] for column in columns] for strategy, row in rows.items()}


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
    sharded = {one.name: [one.device] for one in SHARDED.values()}
    assert bounds("bench/strategies/sharded/README.md", 2) == sharded

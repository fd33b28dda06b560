"""Tables of documents say what the code says: options, properties, bounds, sizes, columns, fields, recorded runs."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch

from bench.conformance.properties import PROPERTIES
from bench.plugin.option import markdown_table
from bench.plugin.options import OPTIONS
from bench.report.document_tables import document_tables
from bench.report.strategy_tables import DOCUMENTS as STRATEGY_DOCUMENTS
from bench.report.strategy_tables import TABLES as STRATEGY_TABLES
from bench.report.strategy_tables import with_strategies
from bench.selftest.documents.markdown import ROOT, documented, documents, tables
from bench.sharded.recipes import SHARDED
from model.checkpoints.specification import Specification
from model.gpt2 import SIZES

DOCUMENTS = documents()


def table(name: str, heading: str) -> list[list[str]]:
    """Return the rows of all tables of a document whose first column has a heading."""
    return [row for _, *rows in tables(DOCUMENTS[name], heading) for row in rows]


def test_the_table_of_options_is_that_of_the_command_line(tmp_path: Path) -> None:
    [_, _, module] = documented("python -m bench.plugin")
    document = tmp_path / "README.md"
    document.write_text("before\n\n| option | meaning |\n|---|---|\n| old | row |\n\nafter\n")
    import_module(f"{module}.__main__").main(document)
    assert document.read_text() == f"before\n\n{markdown_table(OPTIONS)}\n\nafter\n"
    assert markdown_table(OPTIONS) in DOCUMENTS["bench/README.md"], f"write it with python -m {module}"


def test_every_property_is_in_the_table() -> None:
    rows = [[one.name, one.meaning] for one in PROPERTIES.values()]
    assert table("bench/conformance/README.md", "column") == rows


@pytest.mark.parametrize("name", STRATEGY_DOCUMENTS)
def test_the_tables_of_strategies_are_as_they_are_declared(name: str) -> None:
    """Every strategy is listed, with the bounds that are asserted and the models that its row refuses."""
    assert all(table(name, heading) for document, heading in STRATEGY_TABLES if document == name)
    assert with_strategies(name, DOCUMENTS[name]) == DOCUMENTS[name], "run python -m bench.report --tables"


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


@pytest.mark.parametrize("name", document_tables())
def test_the_tables_of_columns_and_fields_are_as_they_are_declared(name: str) -> None:
    lines = document_tables()[name]
    assert "\n".join(lines) in DOCUMENTS[name], "run python -m bench.report --tables"


def test_the_readme_explains_the_columns_of_its_table() -> None:
    heading = next(line for line in DOCUMENTS["README.md"].splitlines() if line.startswith("strategy "))
    shown = [name for name in re.split(r" {2,}", heading) if name not in ("strategy", "size")]
    assert [row[0] for row in table("README.md", "heading")] == shown


def test_every_recorded_run_is_described() -> None:
    described = {number for row in table("results/README.md", "run") for number in re.findall(r"\d{4}", row[0])}
    committed = {file.name[:4] for file in ROOT.glob("results/*/0*.json") if file.name[:4] <= max(described)}
    assert described == committed


def bounds(name: str, *places: int) -> dict[str, list[str]]:
    """Return some columns of a document's table of strategies, by the name of the strategy."""
    found: dict[str, list[str]] = {}
    for row in table(name, "strategy"):
        strategy, _, link = row[0].replace("`", "").strip("[").partition("]")
        assert strategy not in found
        assert strategy.startswith(Path(link.strip("()")).stem)
        found[strategy] = [row[place] for place in places]
    return found


def test_the_bounds_of_ranks_are_those_that_are_asserted() -> None:
    files = {"0": "", "S | 0": ", and S file-backed in rank 0", "T": ", and file-backed pages with its shards"}
    files["F"] = f"{files['T']} in one file"
    assert bounds("bench/sharded/README.md", 2, 3) == {
        one.name: [one.bounds.device, one.bounds.host + files[one.bounds.file]] for one in SHARDED.values()
    }

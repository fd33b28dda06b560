from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_benchmark.table import TableResults
from pytest_benchmark.utils import name_formatter_long, name_formatter_normal

from bench.plugin.benchmark_table import fit_terminal, short_name
from bench.sharded.recipes import SHARDED
from bench.strategies import PEERS, STRATEGIES

SHOWN = ["min", "median"]
STATS = ("min", "max", "mean", "stddev", "median", "iqr", "ops", "rounds", "iterations")


class Terminal(StringIO):
    """The part of pytest's terminal reporter that the table writes to."""

    def write(self, text: str, **markup: bool) -> int:
        return super().write(text)

    def write_line(self, line: str, **markup: bool) -> None:
        super().write(f"{line}\n")


def bench(param: str, source: str = "", seconds: float = 1234.5678, **extra_info: Any) -> dict[str, Any]:
    name = {"name": f"test_load_time[{param}]", "fullname": f"bench/test_load_time.py::test_load_time[{param}]"}
    known = {"param": param, "source": source, "extra_info": {"schema": 1} | extra_info, "outliers": "0;0"}
    return name | known | dict.fromkeys(STATS, seconds)


def displayed(
    benches: list[dict[str, Any]], columns: list[str] = SHOWN, name_format: Any = name_formatter_normal
) -> str:
    """Return what pytest-benchmark writes of a group, in the unit where numbers are longest."""
    groups = [("test_load_time", benches)]
    session, terminal = SimpleNamespace(name_format=name_format, columns=columns, groups=groups), Terminal()

    def display(to: Any) -> None:
        table = TableResults(session.columns, "min", None, session.name_format, None, lambda unit, **_: ("", 1.0))
        table.display(to, groups, lambda values, *_, **__: (("", value) for value in values))

    session.display = display
    fit_terminal(session, 80)
    session.display(terminal)
    return terminal.getvalue()


@pytest.mark.parametrize("source", ["", "Linux-CPython-3.11-64bit/0010_a8a39783049a"])
@pytest.mark.parametrize(
    "params",
    [
        [f"{name}-medium-cuda:0" for name in (*STRATEGIES, *PEERS)],
        [f"{name}-tensor-medium-x8-cuda" for name in SHARDED],
    ],
    ids=["alone", "sharded"],
)
def test_its_table_fits_eighty_columns_and_has_no_legend(params: list[str], source: str) -> None:
    benches = [bench(param, source) for param in params] + [bench(params[0], "NOW")]
    text = displayed(benches)
    assert max(map(len, text.splitlines())) <= 80
    assert "Legend" not in text
    assert "OPS" not in text


@pytest.mark.parametrize(("column", "other"), [("outliers", "OPS:"), ("ops", "Outliers:")])
def test_a_column_that_is_shown_is_explained(column: str, other: str) -> None:
    text = displayed([bench("streamed-small-cpu")], [*SHOWN, column])
    assert "Legend:" in text
    assert f"  {'Outliers' if column == 'outliers' else 'OPS'}:" in text
    assert f"  {other}" not in text


def test_a_name_says_what_the_title_does_not() -> None:
    assert short_name(bench("streamed-small-cuda:0")) == "streamed-small"
    assert short_name(bench("streamed-small-cpu", "Linux/0010_a8a3")) == "streamed-small (0010)"
    assert short_name(bench("streamed-small-cpu", "NOW")) == "streamed-small (NOW)"
    # Somebody else's benchmark, and a name that was asked for, are pytest-benchmark's to say.
    theirs = bench("one-two") | {"extra_info": {}}
    assert short_name(theirs) == "test_load_time[one-two]"
    assert "bench/test_load_time.py::" in displayed([bench("streamed-small-cpu")], name_format=name_formatter_long)

"""pytest-benchmark's own table in 80 columns: short names, and a legend of the columns that are shown."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pytest_benchmark.utils import name_formatter_normal

# How lines of the legend begin, and the column that each explains.
LEGEND = {"  Outliers:": "outliers", "  OPS:": "ops"}

# As pyproject.toml has them, the one to keep last; and what one takes at most, with how it compares to the best.
COLUMNS, COLUMN_WIDTH = ["min", "median"], 24

# Of the number of a recorded run.
DIGITS = 4


class BenchmarkTerminal:
    """A terminal reporter that leaves out the legend of columns that are not shown."""

    def __init__(self, terminal: Any, columns: list[str]) -> None:
        self._terminal = terminal
        self._left_out = tuple(begin for begin, column in LEGEND.items() if column not in columns)
        if len(self._left_out) == len(LEGEND):
            self._left_out += ("Legend:",)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal, name)

    def write_line(self, line: str, **markup: bool) -> None:
        if not line.startswith(self._left_out or "\0"):
            self._terminal.write_line(line, **markup)


def short_name(bench: Mapping[str, Any]) -> str:
    """The parameters of one of the suite's benchmarks without the device, which all share; then the run it is of."""
    if "schema" not in bench["extra_info"]:
        return name_formatter_normal(bench)
    strategy_and_size, _, _ = bench["param"].rpartition("-")
    if source := bench["source"]:
        return f"{strategy_and_size} ({PurePath(source).name[:DIGITS]})"
    return strategy_and_size


def fit_terminal(session: Any, width: int) -> None:
    """Have pytest-benchmark's session display its table that way, unless its own options ask for more."""
    if session.name_format is name_formatter_normal:
        session.name_format = short_name
    names = [session.name_format(bench) for _, benches in session.groups or () for bench in benches]
    if session.columns == COLUMNS and max(map(len, names), default=0) + len(COLUMNS) * COLUMN_WIDTH > width:
        session.columns = COLUMNS[-1:]
    display, columns = session.display, session.columns
    session.display = lambda terminal: display(BenchmarkTerminal(terminal, columns))

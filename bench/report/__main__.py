"""Writes the page of a recorded run and the tables of documents: `python -m bench.report --help`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import interrupts  # before torch
from bench.history.run_files import read_runs
from bench.history.runs import Run
from bench.history.schema import PASSED
from bench.record.record_file import Unreadable
from bench.report.document_tables import write_tables
from bench.report.page import page_is_possible
from bench.report.peers import PEERS
from bench.report.readme import PAGE, write_readme
from bench.report.recorded import Recorded, recorded
from bench.report.recorded_section import RecordedSection
from bench.report.sharded_section import SHARDED
from model.checkpoints.cache import cache_folder
from model.installation import pip_install
from model.printable import LONGEST_LINE, printable

ROOT = Path(__file__).parents[2]


class NoSuchRun(Exception):
    """No recorded run has the number that was asked for, or several have it. `str()` says which, in one line."""


def main(arguments: Sequence[str], root: Path = ROOT) -> None:
    """Write what the arguments ask for. An error is one line, with exit status 2."""
    interrupts.leave_quietly()
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="make the page of a recorded run again")
    parser.add_argument("run", nargs="?", help="its number or its file (default: the last one that passed)")
    parser.add_argument("--storage", type=Path, default=root / "results", help="where runs are recorded")
    parser.add_argument("--report", type=Path, help="where the page is written (default: report/ in the storage)")
    parser.add_argument(
        "--peers", nargs="+", metavar="RUN", help=f"write the loaders of these runs into {PEERS.document}"
    )
    parser.add_argument(
        "--sharded", nargs="+", metavar="RUN", help=f"write the sharded loads of these runs into {SHARDED.document}"
    )
    parser.add_argument(
        "--tables", action="store_true", help="write the tables of columns, fields and strategies into documents"
    )
    parser.add_argument(
        "--readme",
        action="store_true",
        help=f"write the run's table and picture into README.md, and its page into {PAGE}",
    )
    options = parser.parse_args(arguments)
    for section, names in ((PEERS, options.peers), (SHARDED, options.sharded)):
        if names:
            _write_section(parser, options.storage, section, names, root)
    if options.tables:
        write_tables(root)
    if options.peers or options.sharded or options.tables:
        return
    if not page_is_possible():
        parser.error(f"a page wants more than is installed: {pip_install('report')}")
    from bench.report.page.page import NAME, write_page  # noqa: PLC0415 - of an extra

    try:
        runs = _runs(options.storage)
        run = _chosen(runs, options.run)
        before = [one for one in runs if one.moment < run.run.moment]
        page = (options.report or options.storage / "report") / NAME
        if options.readme:
            write_readme(run, root)
            page = root / PAGE
        print(write_page(run, [*before, run.run], page.parent, cache_folder(), page.name))  # noqa: T201
    except (NoSuchRun, Unreadable, ValueError, OSError) as error:
        parser.error(printable(str(error), LONGEST_LINE))


def _write_section(
    parser: argparse.ArgumentParser, storage: Path, section: RecordedSection, names: Sequence[str], root: Path
) -> None:
    try:
        runs = _runs(storage)
        section.write([_chosen(runs, name) for name in names], root)
    except (NoSuchRun, Unreadable, ValueError, OSError) as error:
        parser.error(printable(str(error), LONGEST_LINE))


def _runs(storage: Path) -> list[Run]:
    """Read every recorded run, and say on the error output which files are none."""
    runs, passed_over = read_runs(storage)
    for line in passed_over:
        print(f"PASSED OVER: {line}", file=sys.stderr)  # noqa: T201
    return runs


def _recorded(file: Path) -> Recorded:
    try:
        return recorded(file)
    except Unreadable as error:
        raise Unreadable(f"{printable(file.name)} {error}") from None


def _chosen(runs: Sequence[Run], name: str | None) -> Recorded:
    """The run of a number or file. Raises `NoSuchRun` and `Unreadable`."""
    if name and os.path.lexists(name) and not Path(name).is_dir():
        return _recorded(Path(name))
    fitting = [run for run in runs if (run.number == name if name else run.outcome == PASSED)]
    if not fitting:
        there = ", ".join(run.number for run in runs) or "none"
        raise NoSuchRun(f"there is no run {name or 'that passed'}; recorded are: {there}")
    if name and len(fitting) > 1:
        files = ", ".join(f"{run.file.parent.name}/{run.file.name}" for run in fitting)
        raise NoSuchRun(f"{name} is more than one run; name a file: {files}")
    return _recorded(fitting[-1].file)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The page of a recorded run, made again: `python -m bench.report --help`."""

import argparse
from pathlib import Path

from bench.cases.options import checkpoints_folder
from bench.history.runs import PASSED, Run, Unreadable, read_run
from bench.history.storage import found_files, write_whole
from bench.report.page.charts.timelines import timelines
from bench.report.page.page import write_page
from bench.report.page.picture import picture
from bench.report.readme import caption, with_run
from bench.report.recorded import Recorded, recorded

ROOT = Path(__file__).parents[2]
PICTURE = "results/picture.svg"


def main() -> None:
    """Write what was asked for. What cannot be done ends in one line, with status 2."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="make the page of a recorded run again")
    parser.add_argument("run", nargs="?", help="its number or its file (default: the last one that passed)")
    parser.add_argument("--storage", type=Path, default=ROOT / "results", help="where runs are recorded")
    parser.add_argument("--report", type=Path, help="where the page is written (default: report/ in the storage)")
    parser.add_argument("--readme", action="store_true", help="put the run's table and picture into README.md, too")
    options = parser.parse_args()
    try:
        runs = all_runs(options.storage)
        run = chosen(runs, options.run)
        print(write_page(run, runs, options.report or options.storage / "report", checkpoints_folder()))  # noqa: T201
        if options.readme:
            write_readme(run)
    except (LookupError, ValueError, OSError, Unreadable) as error:
        parser.error(str(error))


def all_runs(storage: Path) -> list[Run]:
    """Every run in a folder that can be read, oldest first."""
    found = []
    for file in found_files(storage):
        try:
            found.append(read_run(file))
        except Unreadable:
            continue
    return sorted(found, key=lambda run: run.moment)


def chosen(runs: list[Run], name: str | None) -> Recorded:
    """The run of a number or file. Raises `LookupError` if there is none, and `Unreadable`."""
    if name and Path(name).is_file():
        return recorded(Path(name))
    fitting = [run for run in runs if (run.number == name if name else run.outcome == PASSED)]
    if not fitting:
        there = ", ".join(run.number for run in runs) or "none"
        raise LookupError(f"there is no run {name or 'that passed'}; recorded are: {there}")
    return recorded(fitting[-1].file)


def write_readme(run: Recorded) -> None:
    """Put a run into the README. Raises `ValueError` if it has no timelines, or the README no place for it."""
    figures = [figure for size in run.sizes for figure in timelines(run.metered(size))]
    if not figures:
        raise ValueError(f"--readme: run {run.run.number} has no timelines to make a picture of")
    readme = ROOT / "README.md"
    text = with_run(readme.read_text(), run, PICTURE)
    write_whole(ROOT / PICTURE, picture(figures, caption(run)).encode())
    write_whole(readme, text.encode())


if __name__ == "__main__":
    main()

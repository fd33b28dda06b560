"""A pytest plugin that collects the results of a run and reports them: in the terminal, as files, and to GitHub."""

import os
from collections.abc import Generator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from bench.conformance.sweep import Cell
from bench.history.fingerprint import fingerprint, in_a_line
from bench.measure.case import Case
from bench.measure.planning import plan
from bench.plugin.annotations import FailedTest, annotations
from bench.plugin.benchmark_table import fit_terminal
from bench.plugin.colour import write_coloured
from bench.plugin.divisions import division_notes
from bench.plugin.regression import RegressionPlugin
from bench.plugin.run_results import notes, run_results
from bench.plugin.run_steps import RunSteps
from bench.plugin.selection import case_of
from bench.plugin.settings import Settings
from bench.plugin.user_modules import folders as user_folders
from bench.plugin.versus_plugin import Versus
from bench.record.record import Record
from bench.report.advice.advice import Advice, advised
from bench.report.advice.command import Typed
from bench.report.budget_marks import with_budget
from bench.report.export import export
from bench.report.page import page_is_possible
from bench.report.recorded import problems, recorded
from bench.report.redact import known_folders, without_folders
from bench.report.rows import CaseResult, Problem, Status, coverage, rows
from bench.report.sections import RunResults, job_page, not_compared, sections
from model.installation import pip_install
from model.printable import LONGEST_LINE, printable


class Reporter:
    """Reports the measurements of a run, its comparison with history, and that of `--versus`."""

    def __init__(
        self,
        root: Path,
        chosen: Settings,
        regression: RegressionPlugin,
        versus: Versus | None,
        typed: Typed = MappingProxyType({}),
    ) -> None:
        self._root, self._chosen, self._regression, self._versus = root, chosen, regression, versus
        self._steps, self._typed = RunSteps(), typed
        self._failures: list[FailedTest] = []
        self._cells: list[Cell] = []
        self._results: list[CaseResult] = []
        self._cases: list[Case] = []
        self._page: str | None = None
        self._advice_file: Path | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        session.config.pluginmanager.register(self._steps)

    def pytest_report_header(self) -> list[str]:
        """Return lines about a stand-in for a GPU, and about the user's checkpoint, before anything is measured."""
        memory = self._chosen.stand_in
        stand_in = [f"{self._chosen.device}: a stand-in for a GPU ({memory}); times are not measured"] if memory else []
        lines = [
            *(f"checkpoint: {note}" for note in notes(self._chosen)),
            *division_notes(self._chosen.divisions, self._chosen.own),
        ]
        return [*stand_in, *(printable(line, LONGEST_LINE) for line in lines)]

    @pytest.fixture
    def conformance_cells(self) -> list[Cell]:
        """The cells of the conformance table, which the tests add to."""
        return self._cells

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        reason = _failure_reason(call)
        if report.failed:
            file, line, name = item.location
            ours = item.config.invocation_params.dir.is_relative_to(item.config.rootpath)
            self._failures.append(FailedTest(file if ours else "", (line or 0) + 1, name, reason))
        case = None if item.get_closest_marker("not_in_table") else case_of(item)
        if case and isinstance(item, pytest.Function) and (report.when == "call" or not report.passed):
            problem = Problem.of_skip(reason) if report.skipped else Problem(Status.FAILED, reason)
            record = item.funcargs.get("record")
            known = replace(record) if isinstance(record, Record) else Record()
            self._cases.append(case)
            self._results.append(CaseResult(case.row_key, known, None if report.passed else problem))
        return report

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        folders = known_folders(self._chosen.checkpoints, self._root, *user_folders(self._chosen))
        output_json["conformance"] = [
            asdict(cell) | {"why": without_folders(cell.why, folders)} for cell in self._cells
        ]
        output_json["problems"] = problems(self._results, folders)
        if advice := self._advice():
            output_json["advice"] = [without_folders(line, folders) for line in advice.recorded().lines()]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Complain of what fails a run whose tests passed, before the run is judged and recorded."""
        done = yield
        advice = self._advice()
        if advice and advice.strategy is None:
            self._regression.complain("no strategy fits in the given memory")
        if self._chosen.options.require_all:
            for line in coverage(rows(self._results)):
                self._regression.complain(f"--require-all: {line}")
        return done

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        self._export(session)
        yield
        # By now the run is recorded, or is not going to be.
        storage = self._regression.storage
        if storage and storage.saved:
            folder = self._chosen.options.report or storage.path / "report"
            try:
                self._page = self._write_page(storage.saved, folder)
                self._write_code(folder)
            except SystemExit:
                # What was measured is to be shown, though the user does not wait for the page.
                where = os.path.relpath(storage.path)
                self._page = f"No page: it was interrupted; python -m bench.report --storage {where} makes it"
        elif storage and storage.unsaved:
            self._page = "No page: it shows the recorded run; name another folder for both with --benchmark-storage"

    @cache  # noqa: B019 - there is one of these, and it lasts as long as the run
    def _advice(self) -> Advice | None:
        """Return the advice for the budgets of the run: made once, when all its loads have been tried."""
        table = rows(self._results)
        if self._steps.was_interrupted:
            table = with_budget(table, self._chosen.budget)
            # What was not tried yet may fit: nothing is said of it, nor planned after an interrupt.
            if not any(row.record.fits for row in table):
                return None
        return advised(table, self._cases, plan, self._chosen.budget, self._typed)

    def _write_code(self, folder: Path) -> None:
        """Write the module of the strategy that is advised."""
        advice = self._advice()
        code = advice.code() if advice else None
        if advice and code:
            file = folder / advice.code_file
            try:
                folder.mkdir(parents=True, exist_ok=True)
                file.write_text(code, encoding="utf-8")
            except OSError as error:
                self._regression.complain(f"--report: {file.name} cannot be written: {error.strerror}")
            else:
                self._advice_file = Path(os.path.relpath(file))

    def _export(self, session: pytest.Session) -> None:
        folder = self._chosen.options.export
        if folder and self._regression.benchmarks:
            measured = [bench.as_dict(include_data=False) for bench in self._regression.benchmarks]
            try:
                export(measured, in_a_line(fingerprint({}, self._chosen.checkpoints)), folder)
            except OSError as error:
                self._regression.complain(f"--export: {folder.name}/ cannot be written to: {error.strerror}")
                if session.exitstatus == pytest.ExitCode.OK:
                    session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _write_page(self, saved: Path, folder: Path) -> str | None:
        """Write the page of this run, and return a line that says where it is, or why there is none."""
        name = os.path.relpath(folder)
        if not page_is_possible():
            return f"For a page of this run, in {name}/: {pip_install('report')}"
        from bench.report.page.page import write_page  # noqa: PLC0415 - Altair takes half a second, and is an extra

        try:
            run = recorded(saved)
            page = write_page(run, [*self._regression.runs, run.run], folder, self._chosen.checkpoints)
        except OSError as error:
            self._regression.complain(f"--report: {name}/ cannot be written to: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a page, what was measured is to be shown
            self._regression.complain(f"--report: the page cannot be made: {type(error).__name__}: {error}")
        else:
            return f"Page: {os.path.relpath(page)}"
        return None

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> Generator[None, None, None]:
        width = config.get_terminal_writer().fullwidth
        fit_terminal(config._benchmarksession, width)  # type: ignore[attr-defined]  # noqa: SLF001 - it has no other name
        try:
            yield
        finally:
            results = run_results(
                *(self._chosen, self._regression, self._versus, self._results, self._cells),
                advice=self._advice(),
                advice_file=self._advice_file,
                interrupted=self._interruption(),
            )
            if not config.option.benchmark_quiet:
                self._write_sections(terminalreporter, results)
            for line in self._complaints:
                terminalreporter.write_line(printable(f"ERROR: {line}", LONGEST_LINE), red=True)
            if os.environ.get("GITHUB_ACTIONS") == "true":
                for line in annotations(self._failures, self._complaints, not_compared(results)):
                    terminalreporter.write_line(line)
            page = os.environ.get("GITHUB_STEP_SUMMARY")
            if page and not config.option.benchmark_disable:
                with Path(page).open("a", encoding="utf-8") as file:
                    file.writelines(job_page(results))

    def _interruption(self) -> str:
        if not self._steps.was_interrupted:
            return ""
        storage = self._regression.storage
        return self._steps.interruption(is_recorded=bool(storage and storage.saved))

    @property
    def _complaints(self) -> list[str]:
        return [*self._regression.complaints, *(self._versus.complaints if self._versus else ())]

    def _write_sections(self, terminal: pytest.TerminalReporter, results: RunResults) -> None:
        # A section does not end the line of dots.
        terminal.ensure_newline()
        for title, lines in sections(results, terminal.config.get_terminal_writer().fullwidth):
            terminal.section(title)
            for line in lines:
                write_coloured(terminal, printable(line, LONGEST_LINE))
        if self._page:
            terminal.write_line(self._page)


def _failure_reason(call: pytest.CallInfo[None]) -> str:
    """Return why a test did not pass, in a line; an exception without a message has its name."""
    if call.excinfo is None:
        return ""
    return str(call.excinfo.value).partition("\n")[0] or call.excinfo.typename

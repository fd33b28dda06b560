"""Access to pytest-benchmark's session, which has no public name: the parts that the suite reads and replaces."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.storage.file import FileStorage

from bench.history.baselines import Baselines
from bench.history.run_files import in_text, write_whole
from bench.history.runs import Key
from bench.plugin.storage import Storage


class BenchmarkSession:
    """pytest-benchmark's session of a run; there once the run has started."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        # pytest-benchmark would read the whole history for itself, and end in a traceback where a file is damaged.
        config.option.benchmark_compare = []

    @property
    def _session(self) -> Any:
        return self._config._benchmarksession  # type: ignore[attr-defined]  # noqa: SLF001 - it has no other name

    @property
    def is_disabled(self) -> bool:
        """True where no benchmark is timed."""
        return bool(self._session.disabled)

    @property
    def is_skipped(self) -> bool:
        """True where all benchmarks are skipped."""
        return bool(self._session.skip)

    @property
    def machine(self) -> dict[str, Any]:
        """The machine that the run is on, as its file has it."""
        return dict(self._session.get_machine_info())

    @property
    def right_benchmarks(self) -> list[Any]:
        """The suite's own benchmarks that are right: pytest-benchmark's entries."""
        return [
            bench
            for bench in self._session.benchmarks
            if bench and not bench.has_error and "schema" in bench.extra_info
        ]

    def open_storage(self) -> Storage | None:
        """Replace the storage of files by the suite's; None where runs are stored elsewhere."""
        if not isinstance(self._session.storage, FileStorage):
            return None
        storage = self._session.storage = Storage(self._session.storage)
        return storage

    def compare_elsewhere(self, compare: str | bool) -> None:
        """Leave the comparison to pytest-benchmark."""
        self._session.compare = compare
        self._session.handle_loading()

    def write_json_whole(self, complain: Callable[[str], None]) -> None:
        """Have `--benchmark-json` write its file as a whole, and `complain` in a line where it cannot."""
        session = self._session

        def save(output_json: dict[str, Any]) -> None:
            try:
                write_whole(Path(session.json), in_text(output_json))
            except OSError as error:
                complain(f"--benchmark-json: {session.json} cannot be written: {error.strerror}")
            else:
                session.logger.info(f"Wrote benchmark data in: {session.json}", purple=True)

        session.save_json = save

    def drop_unfinished(self) -> None:
        """Drop what was interrupted while it was measured: without figures pytest-benchmark ends in a traceback."""
        self._session.benchmarks[:] = [bench for bench in self._session.benchmarks if bench.stats.data]

    def failed_checks(self, past: Baselines, keys: list[Key], storage: Storage | None) -> list[str]:
        """Have pytest-benchmark show the last run beside this one; return what `--benchmark-compare-fail` fails.

        pytest-benchmark by itself would save first, then end with a traceback.
        """
        session, last = self._session, past.latest_here(keys)
        if last is None or storage is None:
            session.compare_fail = None
            return []
        storage.baselines = tuple(run.file for run in past.named or (last,))
        session.compare = True
        if reporter := self._config.pluginmanager.getplugin("terminalreporter"):
            reporter.ensure_newline()
        session.handle_loading()
        checks, session.compare_fail = session.compare_fail or [], None
        return [
            f"{bench.name}: {failed}"
            for bench in session.benchmarks
            for compared in session.compared_mapping.values()
            for check in checks
            if bench and bench.fullname in compared
            if (failed := check.fails(bench, compared[bench.fullname]["stats"]))
        ]


def is_timed(bench: dict[str, Any]) -> bool:
    """Return whether the time of a benchmark counts: that of a load whose memory was metered does not."""
    record = bench["extra_info"]
    return "schema" not in record or record.get("bytes_per_second") is not None

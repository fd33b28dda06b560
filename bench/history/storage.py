"""Where runs are kept: pytest-benchmark's files, but each is there as a whole or not at all."""

import os
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.storage.file import FileStorage
from pytest_benchmark.utils import safe_dumps

# Not a name that pytest-benchmark looks at.
UNFINISHED = ".unfinished"


class WholeFiles(FileStorage):
    """pytest-benchmark writes in place: a run that is killed meanwhile leaves half a file under the final name."""

    # Why a run is not on the disk.
    unsaved: str | None = None

    def save(self, output_json: dict[str, Any], save: str) -> None:
        """Write a run to a new file under the next number; where that fails, leave nothing, and say why in `unsaved`.

        To raise would end pytest before it has shown what was measured.
        """
        file: Path = self.get(f"{self._next_num}_{save}.json")
        unfinished = file.with_name(file.name + UNFINISHED)
        try:
            with unfinished.open("xb") as stream:
                stream.write(safe_dumps(output_json, ensure_ascii=True, indent=4).encode())
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.rename(file)
            self.logger.info(f"Saved benchmark data in: {file}")
        except OSError as error:
            self.unsaved = f"this run is not recorded: {file.name} cannot be written: {error.strerror}"
        finally:
            unfinished.unlink(missing_ok=True)


def keep_whole_files(config: pytest.Config) -> None:
    """Let pytest-benchmark save to whole files, if it saves to files at all."""
    session = _session(config)
    if isinstance(session.storage, FileStorage):
        session.storage = WholeFiles(session.storage.path, session.logger, session.machine_id)


def unsaved(config: pytest.Config) -> str | None:
    """Why the run that has just ended is not recorded; None if it is, or was not to be."""
    return getattr(_session(config).storage, "unsaved", None)


def _session(config: pytest.Config) -> Any:
    return config._benchmarksession  # type: ignore[attr-defined]  # noqa: SLF001 - it has no other name

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

    def save(self, output_json: dict[str, Any], save: str) -> None:
        """Write a run to a new file under the next number. Raises `OSError` if it cannot, and then leaves nothing."""
        file: Path = self.get(f"{self._next_num}_{save}.json")
        unfinished = file.with_name(file.name + UNFINISHED)
        try:
            with unfinished.open("xb") as stream:
                stream.write(safe_dumps(output_json, ensure_ascii=True, indent=4).encode())
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.rename(file)
        finally:
            unfinished.unlink(missing_ok=True)
        self.logger.info(f"Saved benchmark data in: {file}")


def keep_whole_files(config: pytest.Config) -> None:
    """Let pytest-benchmark save to whole files, if it saves to files at all."""
    session = config._benchmarksession  # type: ignore[attr-defined]  # noqa: SLF001 - it has no other name
    if isinstance(session.storage, FileStorage):
        session.storage = WholeFiles(session.storage.path, session.logger, session.machine_id)

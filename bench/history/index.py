"""An index of the recorded runs, one file beside the checkpoints: a thousand runs are read at once.

The runs' own files are what counts. An entry is used only if its file is still the one that it was made of, to the
nanosecond of its last change, and is checked like a file. An index that cannot be read is none.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.history import schema
from bench.history.runs import CONTROL, Run, run_of
from bench.history.schema import compared
from bench.record import field, kinds, record
from bench.record.kinds import COUNT, each, fields, in_order, require
from bench.record.record_file import Unreadable, content_of, json_of, status_of

# An index is written once so many bytes of files were read that it does not hold: fewer are read in 0.2 s.
MOST_UNINDEXED_BYTES = 8 * 2**20

# Of the index of seven thousand runs.
MOST_BYTES = 64 * 2**20

# Of other versions of these modules an index is not used.
_VERSION = hashlib.sha256(
    b"".join(Path(str(one.__file__)).read_bytes() for one in (kinds, field, record, schema))
).hexdigest()

_STAMP = each(COUNT)
_INDEX = fields({"version": kinds.one_of((_VERSION,)), "runs": fields({}, rest=in_order((_STAMP, fields({})), 2))})


class Index:
    """Reads the runs in `folder`. Its index is `file`, below the folder `cache`."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._folder = folder.resolve()
        name = hashlib.sha256(os.fsencode(self._folder)).hexdigest()
        self.file = cache / "history" / f"{name[:16]}.json"
        self._known = self._read()
        self._entries: dict[str, tuple[list[int], Mapping[str, Any]]] = {}
        self._unindexed_bytes = 0

    def run(self, file: Path) -> Run:
        """Return the run in a file of the folder. Raises `Unreadable`."""
        if CONTROL.search(file.name):
            raise Unreadable("has control characters in its name: rename it")
        status = status_of(file, self._folder)
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]
        name = str(file.absolute())
        before, data = self._known.get(name, (None, {}))
        if before == stamp:
            try:
                run = run_of(file, data)
            except Unreadable:
                before = None
        if before != stamp:
            data = compared(json_of(content_of(file, self._folder)))
            run = run_of(file, data)
            self._unindexed_bytes += status.st_size
        self._entries[name] = stamp, data
        return run

    def renewed(self) -> bytes | None:
        """Return what is to be written to `file` now that the runs are read; None: that is not worth it."""
        if self._unindexed_bytes < MOST_UNINDEXED_BYTES:
            return None
        content = json.dumps({"version": _VERSION, "runs": self._entries}, separators=(",", ":")).encode()
        return content if len(content) <= MOST_BYTES else None

    def _read(self) -> dict[str, Any]:
        try:
            index = json_of(content_of(self.file, most=MOST_BYTES))
            require(_INDEX, index)
        except Unreadable:
            return {}
        known: dict[str, Any] = index["runs"]
        return known

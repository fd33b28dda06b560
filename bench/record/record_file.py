"""Files of recorded runs, opened so that nothing that lies in their folder stops or hangs whoever reads it."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from model.examine.limits import json_bytes
from model.examine.saved_file import kind_of, open_regular
from model.printable import printable

# The largest run in results/ (all divisions of two sizes, planned for three numbers of ranks) has 0.7 MB. One with the
# points of its timelines has a few.
MOST_BYTES = 8 * 2**20

# Memory for each byte of JSON, by an estimate from above: a run takes 9 times its size, an index of runs 12 times,
# empty lists 50 times.
MOST_TIMES = 16
# And for the smallest.
MOST_BEYOND_BYTES = 32 * 2**20

# Each escaped surrogate begins so, those of pairs included.
SURROGATES = (b"\\ud", b"\\uD")


class Unreadable(Exception):
    """A file that is not a run of this suite, or not one that this version can read. `str()` is why, in a line."""


@contextmanager
def telling_damage() -> Iterator[None]:
    """Raise `Unreadable` for what happens in this block to whoever reads a file that is torn, or no JSON."""
    try:
        yield
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    except RecursionError:
        raise Unreadable("cannot be read: its JSON nests too deep") from None
    except RuntimeError:
        # Of `Path.resolve`, until Python 3.13.
        raise Unreadable("cannot be read: it is a link to itself") from None
    except MemoryError:
        raise Unreadable("cannot be read: it takes more memory than there is") from None
    except ValueError as error:
        raise Unreadable(f"cannot be read: {printable(str(error))}") from None


def status_of(file: Path, folder: Path | None = None, most: int = MOST_BYTES) -> os.stat_result:
    """Return the status of a regular file of at most `most` bytes, below the resolved `folder` if one is given.

    Raises `Unreadable`.
    """
    with telling_damage():
        if folder and not file.resolve().is_relative_to(folder):
            raise Unreadable("is a link that leads out of the folder of the runs")
        return _checked(file.stat(), most)


def _checked(status: os.stat_result, most: int) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable(f"is no file but {kind_of(status.st_mode)}")
    if status.st_size > most:
        raise Unreadable(f"has {status.st_size:,} bytes, and a run at most {most:,}")
    return status


def content_of(file: Path, folder: Path | None = None, most: int = MOST_BYTES) -> bytes:
    """Read such a file. Raises `Unreadable`."""
    with telling_damage():
        status_of(file, folder, most)
        with open_regular(file, follow=True) as stream:
            content = stream.read(most + 1)
    if len(content) > most:
        raise Unreadable(f"has more than {most:,} bytes")
    return content


def json_of(content: bytes) -> Any:
    """Parse a file's content. Raises `Unreadable`, also for what Python takes for JSON: NaN, half a character.

    What would take more memory than runs of its size do is not parsed.
    """
    most = MOST_TIMES * len(content) + MOST_BEYOND_BYTES
    if (needed := json_bytes(content)) > most:
        raise Unreadable(
            f"would take {needed / 2**20:,.0f} MiB of memory, and a run of its size at most {most / 2**20:,.0f}"
        )
    with telling_damage():
        data = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse)
        if any(one in content for one in SURROGATES):
            json.dumps(data, ensure_ascii=False).encode()
        return data


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")

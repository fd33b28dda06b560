"""Removes paths of this machine from messages, because records are read elsewhere."""

import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

Folders = Iterable[Path]

# A path that begins at the root, after a scheme or not, as far as it has folders.
_PATH = re.compile(r"(?:\bfile:)?(?<![\w.~])/+(?:[^\s/'\":()<>]+/+)*")


def known_folders(*folders: Path) -> list[Path]:
    """These folders, and where a user, Python and temporary files are, those within others first."""
    places = {*folders, Path.home(), Path(sys.prefix), Path(sys.base_prefix), Path(tempfile.gettempdir())}
    every = {place for one in places for place in (one, one.absolute(), one.resolve())} - {Path("/")}
    return sorted(every, key=lambda place: -len(str(place)))


def without_folders(text: str, folders: Folders) -> str:
    """A message with the names of files, and not of the folders that they are in."""
    for folder in folders:
        # With what may be written with a blank in it; whoever's home it is does not matter, either.
        text = re.sub(rf"(?:\bfile:/*)?{re.escape(str(folder))}(?![\w-])/?", "/", text)
    return _PATH.sub("", text)

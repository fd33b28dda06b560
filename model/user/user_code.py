"""How code of the user's runs: as in a program of their own, with their imports, and unable to end the run."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from model.printable import printable

# Where the suite's own modules lie, and their names: among the most common that there are.
SUITE = Path(__file__).resolve().parents[2]
SUITE_NAMES = ("bench", "conftest", "model")

# What is shown of a line, in characters: those of transformers list what there is.
LONGEST_LINE = 2000

# What modules of the user's files are called begins with it.
OWN_MODULE = "own_"

# The environment variable that names the file where all processes of a run tell of warnings of the user's code.
WARNINGS_FILE = "WEIGHT_LOADING_WARNINGS"


class NotTheUsers(BaseException):
    """Raised in code of the user's for what is no fault of it: it passes as it is."""


class UserCodeFailed(ValueError):
    """Code of the user's raised something; the message says that in a line."""


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Raise `UserCodeFailed`, which begins with `what`, for anything that code of the user's raises in this block.

    Except for an interrupt, and for what says already that it is of the user's code.
    """
    try:
        yield
    except (KeyboardInterrupt, UserCodeFailed, NotTheUsers):
        raise
    except BaseException as error:
        line = printable(str(error).strip().partition("\n")[0], LONGEST_LINE)
        said = f"{type(error).__name__}: {line}".removesuffix(": ")
        if isinstance(error, SystemExit):
            said += ", which would end the run: put what a script does below if __name__ == '__main__'"
        raise UserCodeFailed(f"{what}: {said}") from error


class UserSurroundings:
    """What code in a folder finds where it runs, and what it has changed there; it is not in force for other code.

    Modules in the folder are found before those of the suite that have the same names. The command line is that of a
    script without arguments. The working folder, and the filters of warnings, are what the code has made of them; at
    first the filters are those that Python has for a script.
    """

    def __init__(self, folder: Path, *, first: bool) -> None:
        names = SUITE_NAMES if folder != SUITE else ()
        self._names = {n for n in names if (folder / f"{n}.py").is_file() or (folder / n).is_dir()}
        self._path = [str(folder)] if first or self._names else []
        self._modules: dict[str, ModuleType] = {}
        self._filters = _ordinary_filters()
        self._working_folder: Path | None = None
        self._entered = False

    @contextmanager
    def entered(self, shown: str) -> Iterator[None]:
        """Have them in force in this block, and tell of its warnings as those of `shown`."""
        with warnings.catch_warnings(record=True) as caught:
            try:
                if self._entered:
                    yield
                else:
                    with patch.object(sys, "argv", [shown.partition(":")[0]]), self._in_force():
                        yield
            finally:
                for one in caught:
                    text = " ".join(str(one.message).split())
                    place = f"{Path(one.filename).name}:{one.lineno}"
                    _tell(f"{shown} warns: {one.category.__name__}: {text} ({place})", os.environ.get(WARNINGS_FILE))

    @contextmanager
    def _in_force(self) -> Iterator[None]:
        self._entered = True
        others, before = self._taken(), _working_folder()
        sys.modules.update(self._modules)
        sys.path[:0] = self._path
        warnings.resetwarnings()
        warnings.filters.extend(self._filters)  # type: ignore[attr-defined]
        if self._working_folder:
            os.chdir(self._working_folder)
        try:
            yield
        finally:
            after = _working_folder()
            self._working_folder = after if after != before else None
            if before:
                os.chdir(before)
            self._filters = list(warnings.filters)
            for one in self._path:
                with suppress(ValueError):  # The code may have taken it out.
                    sys.path.remove(one)
            self._modules = self._taken()
            sys.modules.update(others)
            self._entered = False

    def _taken(self) -> dict[str, ModuleType]:
        """The modules of the names that are in question, and those below them: now they are no longer found."""
        return {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] in self._names}


@cache
def surroundings(folder: Path, *, first: bool) -> UserSurroundings:
    """Those of the code in a folder; `first`: that is searched for modules before all others."""
    return UserSurroundings(folder, first=first)


def _working_folder() -> Path | None:
    """None where it is there no more."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _ordinary_filters() -> list[object]:
    """The filters that Python has for warnings, with modules of the user's files for its main module."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("default")
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("default", category=DeprecationWarning, module=OWN_MODULE)
        # torch says so where there is no NumPy.
        warnings.filterwarnings("ignore", "Failed to initialize NumPy", UserWarning)
        return list(warnings.filters)


@cache
def _tell(line: str, file: str | None) -> None:
    """Append a line to a file, once in this process; without one it goes to where errors are written."""
    if file is None:
        sys.stderr.write(f"{line}\n")
        return
    with suppress(OSError), Path(file).open("a", encoding="utf-8") as opened:
        opened.write(f"{line}\n")

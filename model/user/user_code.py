"""The environment of the user's code: it runs as in a program of its own, and cannot end the run."""

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

# Characters of a line of an error: those of transformers list the choices.
LONGEST_LINE = 2000

# Prefix of the names of modules made of the user's files.
OWN_MODULE = "own_"

# The environment variable with the file to which all processes of a run write warnings of the user's code.
WARNINGS_FILE = "WEIGHT_LOADING_WARNINGS"


class NotTheUsers(BaseException):
    """Raised within the user's code for a fault that is not its own: it passes unchanged."""


class UserCodeFailed(ValueError):
    """Code of the user's raised an error, which the message has in one line."""


@contextmanager
def naming_failures(what: str) -> Iterator[None]:
    """Raise `UserCodeFailed`, which begins with `what`, for any error of the user's code in this block.

    Interrupts, `UserCodeFailed` and `NotTheUsers` pass unchanged.
    """
    try:
        yield
    except (KeyboardInterrupt, UserCodeFailed, NotTheUsers):
        raise
    except BaseException as error:
        first, _, rest = str(error).strip().partition("\n")
        # A heading says nothing without the line below it.
        line = f"{first} {rest.strip().partition(chr(10))[0]}" if first.endswith(":") else first
        reason = f"{type(error).__name__}: {printable(line, LONGEST_LINE)}".removesuffix(": ")
        if isinstance(error, SystemExit):
            reason += ", which would end the run; put what a script does below if __name__ == '__main__'"
        raise UserCodeFailed(f"{what}: {reason}") from error


class UserSurroundings:
    """Interpreter state for the code in a folder, kept between its calls and not in force for other code.

    Modules in the folder, and in the working folder, hide modules of the suite with the same names. The command line is
    that of a script without arguments. The working folder and the filters of warnings are as the code left them; at
    first the filters are those of Python for a script.
    """

    def __init__(self, folder: Path, *, first: bool) -> None:
        of_folder, caller = _hidden(folder), _working_folder()
        of_caller = _hidden(caller) if caller else set()
        self._names = of_folder | of_caller
        self._path = [str(folder)] if first or of_folder else []
        self._path += [str(caller)] if of_caller else []
        self._modules: dict[str, ModuleType] = {}
        self._filters = _ordinary_filters()
        self._working_folder: Path | None = None
        self._entered = False

    @contextmanager
    def entered(self, display_name: str) -> Iterator[None]:
        """Have them in force in this block, and report its warnings as those of `display_name`."""
        with warnings.catch_warnings(record=True) as caught:
            try:
                if self._entered:
                    yield
                else:
                    with patch.object(sys, "argv", [display_name.partition(":")[0]]), self._in_force():
                        yield
            finally:
                for one in caught:
                    text = " ".join(str(one.message).split())
                    place = f"{Path(one.filename).name}:{one.lineno}"
                    _report(
                        f"{display_name} warns: {one.category.__name__}: {text} ({place})",
                        os.environ.get(WARNINGS_FILE),
                    )

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
        """Remove the modules with shared names, and those below them, from `sys.modules`, and return them."""
        return {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] in self._names}


def _hidden(folder: Path) -> set[str]:
    """Return the names of modules of the suite that are names of modules in a folder too."""
    if folder == SUITE:
        return set()
    return {
        name
        for name in SUITE_NAMES
        if (folder / f"{name}.py").is_file() or any((folder / name).glob("*.py")) or any((folder / name).glob("*/*.py"))
    }


@cache
def surroundings(folder: Path, *, first: bool) -> UserSurroundings:
    """Return the surroundings of the code in a folder; `first`: modules are searched there first."""
    return UserSurroundings(folder, first=first)


def _working_folder() -> Path | None:
    """Return the working folder; None if it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _ordinary_filters() -> list[object]:
    """Return Python's default filters of warnings, with modules of the user's files in place of `__main__`."""
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
def _report(line: str, file: str | None) -> None:
    """Append a line to a file, once in this process; without a file, write it to stderr."""
    if file is None:
        sys.stderr.write(f"{line}\n")
        return
    with suppress(OSError), Path(file).open("a", encoding="utf-8") as opened:
        opened.write(f"{line}\n")

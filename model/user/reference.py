"""References to the user's functions, as a command line names them."""

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from inspect import Parameter, signature
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any
from zlib import crc32

from model.run_folder import run_folder
from model.user.user_code import OWN_MODULE, SUITE, SUITE_NAMES, naming_failures, surroundings

# Names that a message lists.
MOST_NAMES = 12


@dataclass(frozen=True)
class Reference:
    """`package.module:name` or `file.py:name`: a function that every process finds by this text."""

    text: str

    @classmethod
    def of(cls, text: str) -> "Reference":
        """Make it with the absolute path of a file: processes may be in other folders."""
        place, colon, name = text.rpartition(":")
        return cls(f"{Path(place).absolute()}:{name}" if colon and place.endswith(".py") else text)

    @property
    def name(self) -> str:
        return self.text.rpartition(":")[2].rpartition(".")[2]

    @property
    def folder(self) -> Path | None:
        """The folder of its file; None for a module that is found by its name."""
        place = self.text.rpartition(":")[0]
        return Path(place).parent if place.endswith(".py") else None

    @property
    def display_name(self) -> str:
        """The text without the folders of a file."""
        place, _, name = self.text.rpartition(":")
        return f"{Path(place).name if place.endswith('.py') else place}:{name}"

    def running(self) -> AbstractContextManager[None]:
        """Run code of this module, in a block, in the surroundings that it expects; see `UserSurroundings`."""
        return in_surroundings(self.text.rpartition(":")[0], self.display_name)

    @property
    def files(self) -> list[Path]:
        """The file of its module, and those in its folder that the module uses; no installed packages."""
        with self.running():
            return _files(_module(self.text.rpartition(":")[0]))

    def find(self) -> Any:
        """Return what the module has under this name. Raises `ValueError`, in a line, if there is nothing."""
        place, colon, name = self.text.rpartition(":")
        if not (place and colon and name):
            raise ValueError(f"{self.text!r} names no function; write file.py:function or package.module:function")
        module = _module(place)
        try:
            found = module
            for part in name.split("."):
                found = getattr(found, part)
        except AttributeError:
            functions = [one for one, value in vars(module).items() if callable(value) and not one.startswith("_")]
            there = f"; choose from {', '.join(sorted(functions)[:MOST_NAMES])}" if functions else "; define it there"
            raise ValueError(f"{Path(place).name} has no {name!r}{_taken(place) or there}") from None
        return found

    def get(self) -> Any:
        """Return the function. Raises `ValueError`, in a line, if there is none."""
        found = self.find()
        if callable(found):
            return found
        raise ValueError(f"{self.display_name} is of type {type(found).__name__}, and not a function; name a function")

    def without_arguments(self) -> Any:
        """Return the function, which can be called without arguments. Raises `ValueError`, in a line, if it cannot."""
        function = self.get()
        if needed := required(function):
            raise ValueError(
                f"{self.display_name} needs arguments ({', '.join(needed)}); wrap it in a function that needs none"
            )
        return function


def required(function: Any) -> list[str]:
    """Return the names of the required arguments of a function."""
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):  # Some functions in C have no signature.
        return []
    variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is Parameter.empty and one.kind not in variable]


@cache
def _module(place: str) -> ModuleType:
    """Import the module of this name, or of this file, which can import its neighbours."""
    if not place.endswith(".py"):
        with naming_failures(f"{place} cannot be imported"), in_surroundings(place, place):
            try:
                return import_module(place)
            except ModuleNotFoundError as error:
                if remedy := _taken(place) or _absent(place, error):
                    raise ModuleNotFoundError(f"{error}{remedy}") from error
                raise
    file = Path(place)
    if not file.is_file():
        shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
        raise ValueError(f"there is no file {shown}; write file.py:function or package.module:function")
    # Two files may have one name, in two folders.
    spec = spec_from_file_location(f"{OWN_MODULE}{crc32(bytes(file.resolve())):08x}_{file.stem}", file)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    # Classes in it may be pickled, or look themselves up.
    sys.modules[spec.name] = module
    for folder in filter(None, (str(file.resolve().parent), _folder_of_name(spec.name, file.resolve()))):
        if folder not in sys.path:
            sys.path.append(folder)
    with naming_failures(f"{file.name} cannot be imported"), in_surroundings(place, file.name):
        spec.loader.exec_module(module)
    return module


def _folder_of_name(name: str, file: Path) -> str | None:
    """Write a module of this name that runs a file, and return its folder: spawned processes import it by name.

    None if the run has no folder for temporary files.
    """
    if not (folder := run_folder()):
        return None
    modules = Path(folder) / "modules"
    modules.mkdir(exist_ok=True)
    read = "with open(__file__, 'rb') as opened:\n    exec(compile(opened.read(), __file__, 'exec'))"
    (modules / f"{name}.py").write_text(f"__file__ = {str(file)!r}\n{read}\n")
    return str(modules)


def _files(module: ModuleType) -> list[Path]:
    """Return the files of a module and, below its folder, of the modules that its values come from, recursively."""
    found: list[Path] = []
    left = [module]
    while left:
        one = left.pop()
        file = Path(getattr(one, "__file__", None) or "")
        beside = not found or file.is_relative_to(found[0].parent)
        if file in found or not beside or not file.is_file() or "site-packages" in file.parts:
            continue
        found.append(file)
        values = [*vars(one).values()]
        left += [value for value in values if isinstance(value, ModuleType)]
        names = {value.__module__ for value in values if isinstance(value, type | FunctionType)}
        left += [sys.modules[name] for name in names & sys.modules.keys()]
    return sorted(found)


def in_surroundings(place: str, display_name: str) -> AbstractContextManager[None]:
    """Run code of a module in a block as the user's; code of the suite runs as it is."""
    if place.endswith(".py"):
        return surroundings(Path(place).resolve().parent, first=True).entered(display_name)
    folder = _folder(place.partition(".")[0])
    return surroundings(folder, first=False).entered(display_name) if folder and folder != SUITE else nullcontext()


@cache
def _folder(package: str) -> Path | None:
    """Return the folder of a top-level module; None if there is none."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve().parent
    return Path(spec.origin).resolve().parent if spec.has_location and spec.origin else None


def _taken(place: str) -> str:
    """Return a remedy if a name of the user's is that of a module of the suite; "" if it is not."""
    name = place.partition(".")[0]
    if name not in SUITE_NAMES:
        return ""
    return f", and {name} is a package of this suite; name yours as a file, {place.replace('.', '/')}.py:FUNCTION"


def _absent(place: str, error: ModuleNotFoundError) -> str:
    """Return a remedy if the module itself is what is missing; "" if it is one that it imports."""
    is_it = error.name is not None and f"{place}.".startswith(f"{error.name}.")
    return "; install it, or write file.py:function" if is_it else ""

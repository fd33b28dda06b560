"""A recipe as one module of its own: with what it needs of `reading/` in it, ready to be pasted."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bench.strategies import Strategy

FOLDER = Path(__file__).parent
# What of this suite a recipe may import.
READING = "bench.strategies.reading."


@dataclass(frozen=True)
class Definition:
    """A function, a class or a constant of a module, as it is written there, with the comment above it."""

    file: Path
    name: str
    text: str
    # What its text means by names that are defined elsewhere.
    names: frozenset[str]


@dataclass(frozen=True)
class Module:
    """Return what a file defines, and which statement imports a name: of `reading/` the file and the name there."""

    definitions: dict[str, Definition]
    imports: dict[str, str]
    shared: dict[str, tuple[Path, str]]


@dataclass
class _Gathered:
    """Definitions in an order in which each comes after those that it needs, and the imports of all of them."""

    definitions: dict[str, Definition] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)
    seen: set[tuple[Path, str]] = field(default_factory=set)


def pasteable(strategy: Strategy) -> str:
    """The source of a module that has the recipe, and imports torch and the standard library only.

    Raises `ValueError` where two definitions of one name would be needed: then it cannot be one module.
    """
    gathered = _Gathered()
    _gather(Path(strategy.source), strategy.name, gathered)
    first = f'"""Loads a checkpoint into a model: `model = {strategy.name}({_arguments(gathered, strategy.name)})`."""'
    blocks = [one.text for one in gathered.definitions.values()]
    return "\n".join([first, "", *_imports(gathered.imports), "", "", "\n\n\n".join(blocks), ""])


def _arguments(gathered: _Gathered, name: str) -> str:
    """Return the arguments that a recipe needs, as it names them."""
    [function] = ast.parse(gathered.definitions[name].text).body
    assert isinstance(function, ast.FunctionDef)
    needed = len(function.args.args) - len(function.args.defaults)
    return ", ".join(one.arg for one in function.args.args[:needed])


def _gather(file: Path, name: str, gathered: _Gathered) -> None:
    if (file, name) in gathered.seen:
        return
    gathered.seen.add((file, name))
    module = _module(file)
    definition = module.definitions[name]
    for other in sorted(definition.names):
        if other in module.definitions:
            _gather(file, other, gathered)
        elif other in module.shared:
            _gather(*module.shared[other], gathered)
        elif other in module.imports:
            gathered.imports.add(module.imports[other])
    if name in gathered.definitions:
        other_file = gathered.definitions[name].file
        raise ValueError(f"{file.name} and {other_file.name} both define {name}: rename one of them")
    gathered.definitions[name] = definition


@cache
def _module(file: Path) -> Module:
    text = file.read_text(encoding="utf-8")
    lines, module = text.splitlines(), Module({}, {}, {})
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            _note_imports(node, module)
        for name in _defined(node):
            module.definitions[name] = Definition(file, name, _text(node, lines), frozenset(_names(node)) - {name})
    return module


def _note_imports(node: ast.Import | ast.ImportFrom, module: Module) -> None:
    for alias in node.names:
        if alias.asname:
            raise ValueError(f"import {alias.name} by its own name: as {alias.asname} it cannot be pasted")
        if isinstance(node, ast.Import):
            module.imports[alias.name.partition(".")[0]] = f"import {alias.name}"
        elif str(node.module).startswith(READING):
            place = str(node.module).removeprefix("bench.strategies.").replace(".", "/")
            module.shared[alias.name] = FOLDER / f"{place}.py", alias.name
        else:
            module.imports[alias.name] = f"from {node.module} import {alias.name}"


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from (one.id for one in ast.walk(target) if isinstance(one, ast.Name))


def _names(node: ast.stmt) -> Iterator[str]:
    return (one.id for one in ast.walk(node) if isinstance(one, ast.Name))


def _text(node: ast.stmt, lines: list[str]) -> str:
    start = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))]) - 1
    while start and lines[start - 1].startswith("#"):
        start -= 1
    return "\n".join(lines[start : node.end_lineno])


def _imports(statements: Iterable[str]) -> Iterator[str]:
    """The standard library first, then torch; modules before names of them, those of one module in one line."""
    names: dict[tuple[bool, bool, str], list[str]] = {}
    for statement in statements:
        module, _, name = statement.removeprefix("from ").removeprefix("import ").partition(" import ")
        key = module.partition(".")[0] == "torch", statement.startswith("from"), module
        names.setdefault(key, []).append(name)
    before = False
    for is_torch, is_from, module in sorted(names):
        if is_torch and not before:
            yield ""
        before = is_torch
        found = ", ".join(sorted(names[is_torch, is_from, module]))
        yield f"from {module} import {found}" if is_from else f"import {module}"

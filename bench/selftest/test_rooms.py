"""Rooms import rooms below them, and none above: the way of a measurement goes one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From low to high. The oracle is a program of its own, which loads models as measurements do.
ROOMS = (
    "model",
    "bench.strategies",
    "bench.meters",
    "bench.record",
    "bench.history",
    "bench.conformance",
    "bench.measure",
    "bench.meters.oracle",
    "bench.sharded",
    "bench.versus",
    "bench.report",
    "bench.plugin",
)


def room_of(module: str) -> str | None:
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len, default=None)


def sources(room: str) -> Iterator[Path]:
    """Yield the files of a room, but for its tests."""
    for file in sorted((ROOT / room.replace(".", "/")).rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if not file.name.startswith(("test_", "conftest")) and room_of(module) == room:
            yield file


def imported(file: Path) -> set[str]:
    """Return the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_room_above_it(room: str) -> None:
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    upwards = {
        f"{file.relative_to(ROOT)}: {module}"
        for file in sources(room)
        for module in imported(file)
        if room_of(module) in above or module.startswith("bench.selftest")
    }
    assert upwards == set()


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "bench.plugin"])
def test_pytest_is_known_in_one_room(room: str) -> None:
    knowing = {
        f"{file.relative_to(ROOT)}: {module}"
        for file in sources(room)
        for module in imported(file)
        if module.partition(".")[0] in {"pytest", "pytest_benchmark", "_pytest"}
    }
    assert knowing == set()

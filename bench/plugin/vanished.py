"""A test for a recorded benchmark that no longer exists: it fails unless it is deselected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Vanished(pytest.Item):
    """Stands where a recorded benchmark stood: `-k`, `--deselect` and the rest select it as they selected that.

    `fail` is called when it runs.
    """

    # It counts as a benchmark: `--benchmark-only` is not to leave it out.
    fixturenames = ("benchmark",)

    def __init__(self, *, fail: Callable[[], None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._fail = fail

    def runtest(self) -> None:
        self._fail()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:  # noqa: ARG002 - pytest passes it
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


def placeholders(
    session: pytest.Session, items: list[pytest.Item], fullname: str, fail: Callable[[], None]
) -> list[Vanished]:
    """Return an item in the place of a vanished benchmark, or none if the command line does not reach there."""
    file, _, name = fullname.partition("::")
    config, path = session.config, session.config.rootpath / file
    if config.hook.pytest_ignore_collect(collection_path=path, config=config):
        return []
    if not any(_reaches(argument, config, path, name) for argument in config.args):
        return []
    modules = {module.nodeid: module for item in items if (module := item.getparent(pytest.Module))}
    gone = Vanished.from_parent(modules.get(file, session), name=name, nodeid=fullname, fail=fail)
    # Those of the same test, for `-m`.
    test = name.partition("[")[0]
    others = (item for item in items if item.parent is gone.parent and item.name.partition("[")[0] == test)
    for mark in {mark.name for mark in getattr(next(others, None), "own_markers", ())} - {"parametrize"}:
        gone.add_marker(mark)
    return [gone]


def _reaches(argument: str, config: pytest.Config, file: Path, name: str) -> bool:
    """Return whether an argument of the command line names this test, its file, or a folder above it."""
    path, _, node = argument.partition("::")
    asked = (config.invocation_params.dir / path).resolve()
    return file.resolve().is_relative_to(asked) and node in ("", name, name.partition("[")[0])

"""Checkpoints that change during a run: the first test that reads one fails with one line, the others are skipped."""

from collections.abc import Callable, Generator, Iterable

import pytest

from bench.measure.case import Case
from bench.plugin.selection import case_of
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.specification import Specification
from model.examine.trust import LONGEST_PART, UntrustedCheckpoint
from model.printable import printable

# The beginning of the message of a load's process whose checkpoint is at fault.
UNTRUSTED = f"{UntrustedCheckpoint.__name__}: "


class CheckpointUnusable(pytest.fail.Exception):  # type: ignore[name-defined, misc]  # pytest gives its class no other name
    """The checkpoint of a test is at fault; the message is one line."""

    # The summary of a run shows `Unsound: ` and the message: of a long word it would show less of that.
    __module__, __qualname__ = "builtins", "Unsound"

    def __init__(self, told: str) -> None:
        super().__init__(printable(told.removeprefix(UNTRUSTED), 2 * LONGEST_PART), pytrace=False)


class UnusableCheckpoints:
    """A pytest plugin: the first test that meets such a checkpoint fails, the others that need it are skipped.

    `held` gives the checkpoints that the run uses, as they were when they were found to be sound.
    """

    def __init__(self, held: Callable[[], Iterable[Checkpoint]]) -> None:
        self._held = held
        # The test that has reported a fault, by its message, and by what has it.
        self._reported: dict[object, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        case = case_of(item)
        # Processes that load together ask each other first: none of them may leave.
        if case and not isinstance(case, ShardedCase) and (first := self._reported.get(_needed(case.specification))):
            pytest.skip(_reference(first))
        return (yield from self._watched(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._watched(item))

    def _watched(self, item: pytest.Item) -> Generator[None, object, object]:
        try:
            return (yield)
        except (pytest.skip.Exception, pytest.exit.Exception):
            raise
        except (Exception, pytest.fail.Exception) as error:
            case = case_of(item)
            unusable = error if isinstance(error, CheckpointUnusable) else self._found(case) if case else None
            if unusable is None or case is None:
                raise
            self._reported.setdefault(_needed(case.specification), item.nodeid)
            if (first := self._reported.setdefault(str(unusable), item.nodeid)) != item.nodeid:
                raise pytest.skip.Exception(_reference(first)) from None
            raise unusable from None

    def _found(self, case: Case) -> CheckpointUnusable | None:
        """Return the fault of a checkpoint of a failed test, if it has one: a load may report it less well."""
        needed = {_needed(case.specification), _needed(case.rehearsal)}
        for checkpoint in self._held():
            if _needed(checkpoint.specification) in needed:
                try:
                    checkpoint.require_unchanged()
                except UntrustedCheckpoint as error:
                    return CheckpointUnusable(str(error))
        return None


def _needed(specification: Specification) -> object:
    """Return what is loaded: of a checkpoint of the user's, whatever is made of it, the file."""
    source = specification.user_model.source if specification.user_model else None
    return source.path if source else specification


def _reference(first: str) -> str:
    return f"the checkpoint is not sound, as {first} says"

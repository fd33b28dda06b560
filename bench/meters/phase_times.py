"""Times at which the steps of a load were done, on the monotonic clock, which all processes of a machine share."""

import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


class PhaseTimes:
    """Moments by name; a step that never came has none."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def note(self, moment: str) -> None:
        self.seconds[moment] = time.monotonic()

    def first(self, moment: str, call: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
        """Return `call` wrapped: its first return is noted."""
        return _then(call, lambda: self.seconds.setdefault(moment, time.monotonic()))

    def last(self, moment: str, call: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
        """Return `call` wrapped: its last return is noted."""
        return _then(call, lambda: self.note(moment))


def _then(call: Callable[Arguments, Returned], note: Callable[[], object]) -> Callable[Arguments, Returned]:
    @wraps(call)
    def noting(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        returned = call(*args, **kwargs)
        note()
        return returned

    return noting

"""When the steps of a load were done, on the monotonic clock, which all processes of a machine share."""

import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


class Moments:
    """Notes moments by name; a step that never came has none."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def note(self, moment: str) -> None:
        self.seconds[moment] = time.monotonic()

    def first(self, moment: str, call: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
        """The same function, but when it first returned is noted."""

        @wraps(call)
        def noting(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
            returned = call(*args, **kwargs)
            self.seconds.setdefault(moment, time.monotonic())
            return returned

        return noting

    def last(self, moment: str, call: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
        """The same function, but when it last returned is noted."""

        @wraps(call)
        def noting(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
            returned = call(*args, **kwargs)
            self.note(moment)
            return returned

        return noting

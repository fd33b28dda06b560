"""Loads that may end the process that they are called in, or never come back: judged in one of their own."""

import gc
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType

import torch
from hypothesis import settings

from bench.conformance.judge import CellStatus, Judgement
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import Cell, sweep
from bench.meters.process import Child, LoadDied, LoadFailed, child_process, telling_failures
from bench.strategies import Strategy

# What a sweep may take before its process is ended: a library's first import, and a second an example.
START_SECONDS, EXAMPLE_SECONDS = 60.0, 1.0


@dataclass(frozen=True)
class _Asked:
    property_name: str
    device: str
    examples: int
    shrinks: bool


class IsolatedRunner:
    """A process for one loader at a time, which imports its library once; another one where that ended."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._child: Child | None = None
        self._strategy: Strategy | None = None

    def __enter__(self) -> "IsolatedRunner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def cell(self, strategy: Strategy, property_name: str, device: str, *, shrinks: bool = True) -> Cell:
        """Sweep in the process; a process that ended, or had to be, gives a cell that says so. `shrinks`: see `sweep`.

        Raises `LoadFailed` if what tries it fails.
        """
        examples = settings().max_examples
        if self._child is None or self._strategy != strategy:
            self._start(strategy, START_SECONDS + EXAMPLE_SECONDS * examples)
        child = self._child
        assert child is not None
        child.connection.send(_Asked(property_name, device, examples, shrinks))
        try:
            return child.receive(Cell, child.deadline())
        except LoadDied as error:
            self._end()
            return Cell(strategy.name, property_name, CellStatus.DIED, 0, why=str(error), is_own=strategy.is_users)
        except LoadFailed:
            self._end()
            raise

    def _start(self, strategy: Strategy, limit_seconds: float) -> None:
        self._end()
        self._child = self._stack.enter_context(child_process(_serve, strategy, limit_seconds))
        self._strategy = strategy

    def _end(self) -> None:
        self._stack.close()
        self._child = None


def _serve(connection: Connection, strategy: Strategy) -> None:
    """Serve requests for sweeps until the connection closes."""
    with telling_failures(connection):
        with suppress(ValueError):  # What cannot be imported is told by the load that wants it.
            _ = strategy.function
        # There are loaders that collect garbage for every tensor: what libraries have imported need not be looked at.
        gc.collect()
        gc.freeze()
        while True:
            try:
                asked: _Asked = connection.recv()
            except EOFError:
                return
            profile = settings(max_examples=asked.examples)
            row = PROPERTIES[asked.property_name]
            connection.send(sweep(strategy, row, torch.device(asked.device), profile, shrinks=asked.shrinks))


def judge_isolated(judged: Callable[[], Judgement], limit_seconds: float) -> Judgement:
    """Return what `judged` does, in a process of its own. Raises `LoadDied` and `LoadFailed`."""
    with child_process(_judge, judged, limit_seconds) as child:
        return child.receive(Judgement, child.deadline())


def _judge(connection: Connection, judged: Callable[[], Judgement]) -> None:
    with telling_failures(connection):
        connection.send(judged())

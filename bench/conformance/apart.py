"""Loads that may end the process that they are called in, or never come back: judged in one of their own."""

import gc
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType

import torch
from hypothesis import settings

from bench.conformance.judge import Outcome, Verdict, judge
from bench.conformance.own_model import OwnModel
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import Cell, sweep
from bench.meters.process import Child, LoadDied, LoadFailed, child_process, telling_failures
from bench.strategies import Strategy
from model.own import Own

# What a sweep may take before its process is ended: a library's first import, and a second an example.
START_SECONDS, EXAMPLE_SECONDS = 60.0, 1.0


@dataclass(frozen=True)
class _Asked:
    property_name: str
    device: str
    examples: int


class Apart:
    """A process for one loader at a time, which imports its library once; another one where that ended."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._child: Child | None = None
        self._strategy: Strategy | None = None

    def __enter__(self) -> "Apart":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def cell(self, strategy: Strategy, property_name: str, device: str) -> Cell:
        """What comes of a strategy; that the process ended, or had to be, is the cell then.

        Raises `LoadFailed` if what tries it fails.
        """
        examples = settings().max_examples
        if self._child is None or self._strategy != strategy:
            self._start(strategy, START_SECONDS + EXAMPLE_SECONDS * examples)
        child = self._child
        assert child is not None
        child.connection.send(_Asked(property_name, device, examples))
        try:
            return child.receive(Cell, child.deadline())
        except LoadDied as error:
            self._end()
            return Cell(strategy.name, property_name, Outcome.DIED, 0, why=str(error))
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
    """Sweep what is asked for, until nobody asks any more."""
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
            connection.send(sweep(strategy, row, torch.device(asked.device), profile))


def judge_apart(strategy: Strategy, own: Own, device: str, limit_seconds: float) -> Verdict | None:
    """What becomes of the user's model; None where its factory makes another one each time.

    Raises `LoadDied` and `LoadFailed`.
    """
    with child_process(_judge, (strategy, OwnModel(own), device), limit_seconds) as child:
        [verdict] = child.receive(tuple, child.deadline())
    return verdict


def _judge(connection: Connection, asked: tuple[Strategy, OwnModel, str]) -> None:
    strategy, specimen, device = asked
    with telling_failures(connection):
        verdict = None
        if specimen.is_repeatable:
            verdict = judge(strategy.load, strategy.layout, specimen, torch.device(device))
        connection.send((verdict,))

"""Loaders that hide from their own process what they load wrong are found out from outside, and right ones pass."""

import gc
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from bench.cases.wrong import WRONG
from bench.cases.wrong.right import right
from bench.meters.child import Job, _check
from bench.meters.process import Child, LoadFailed, child_process, telling_failures
from model import outside
from model.checkpoints import Checkpoint, Specification, make
from model.gpt2 import REHEARSAL
from model.memory import memory_of
from model.outside import judge_of
from model.places import teller
from model.stamps import stamps
from model.verify import check_model

CPU = torch.device("cpu")
SPECIFICATION = Specification(REHEARSAL, "float32", "torch")


def serve(connection: Connection, limit_seconds: float) -> None:
    """Load by the loader of each name that comes, in a process of its own, and tell of the model as a meter does."""
    while True:
        try:
            name, checkpoint = connection.recv()
        except EOFError:
            return
        if not (pid := os.fork()):
            with suppress(BaseException):
                _load_one(connection, name, checkpoint)
            os._exit(0)
        os.waitpid(pid, 0)


def _load_one(connection: Connection, name: str, checkpoint: Checkpoint) -> None:
    tell, send = teller(connection.fileno()), connection.send
    send(os.getpid())
    connection.recv()
    with telling_failures(connection):
        job = Job(lambda: None, lambda _: None, lambda *_: None, None, partial(check_model, checkpoint, CPU))  # type: ignore[arg-type, return-value]
        model = right(checkpoint.specification.build, checkpoint.path, CPU)
        model = WRONG[name](model, checkpoint.path) if name in WRONG else model
        gc.collect()
        _check(job, model, tell)
        send("done")


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with child_process(serve, 10.0, 10.0) as child:
        yield child


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "made"
    make(SPECIFICATION, folder, lambda _: None)
    return Checkpoint(SPECIFICATION, folder, stamps(folder))


def judged(child: Child, name: str, checkpoint: Checkpoint) -> None:
    """Raise `LoadFailed` if a loader is found to load a wrong model."""
    judge = judge_of(checkpoint, CPU)
    assert judge
    child.connection.send((name, checkpoint))
    with memory_of(child.receive(int, child.deadline())) as memory:
        assert memory
        child.connection.send("go")
        of_fork = Child(child.process, child.connection, child.limit_seconds, memory)
        of_fork.require_right(judge, str, child.deadline())
        assert child.receive(str, child.deadline()) == "done"


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_model_is_found(
    name: str, child: Child, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "LATER_SECONDS", 0.5)
    with pytest.raises(LoadFailed, match=r"^(WrongModel|UntrustedCheckpoint): "):
        judged(child, name, checkpoint)


def test_a_right_model_is_not_accused(child: Child, checkpoint: Checkpoint) -> None:
    judged(child, "right", checkpoint)

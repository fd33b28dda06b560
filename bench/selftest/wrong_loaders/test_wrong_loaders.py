"""Loaders that hide from their own process what they load wrong are found out from outside, and right ones pass."""

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import nn

import bench.meters.child
from bench.measure.load_process import CachedOutputs, run_load
from bench.meters import device_meter
from bench.meters.child import Job, _check, run
from bench.meters.clock import LoadClock, remote_clock
from bench.meters.measure import measure_child
from bench.meters.process import Child, LoadFailed, child_process, telling_failures
from bench.selftest.wrong_loaders import WRONG
from bench.selftest.wrong_loaders.right import patch, right
from bench.strategies import Load
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.file_identity import file_identities
from model.checkpoints.making import make
from model.checkpoints.specification import Specification
from model.gpt2 import REHEARSAL
from model.verification import outside_judge
from model.verification.outside_judge import judge_of
from model.verification.process_memory import memory_of
from model.verification.tensor_places import teller
from model.verification.verify import check_model

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
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
        one = job(right, checkpoint)
        model = right(checkpoint.specification.build, checkpoint.path, CPU)
        model = WRONG[name](model, checkpoint.path) if name in WRONG else model
        gc.collect()
        _check(one, model, tell)
        send("done")


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with child_process(serve, 60.0, 60.0) as child:
        yield child


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong") / "made"
    make(SPECIFICATION, folder, lambda _: None)
    return folder


@pytest.fixture
def checkpoint(made: Path, tmp_path: Path) -> Checkpoint:
    folder = shutil.copytree(made, tmp_path / "made")
    return Checkpoint(SPECIFICATION, folder, file_identities(folder))


def judged(child: Child, name: str, checkpoint: Checkpoint) -> None:
    """Raise `LoadFailed` if a loader is found to load a wrong model."""
    judge = judge_of(checkpoint, CPU)
    assert judge
    child.connection.send((name, checkpoint))
    with memory_of(child.receive(int, child.deadline())) as memory:
        assert memory
        child.connection.send("go")
        of_fork = replace(child, memory=memory)
        of_fork.require_right(judge, str, child.deadline())
        assert child.receive(str, child.deadline()) == "done"


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_model_is_found(
    name: str, child: Child, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_judge, "LATER_SECONDS", 0.3)
    with pytest.raises(LoadFailed, match=r"^(WrongModel|UntrustedCheckpoint): "):
        judged(child, name, checkpoint)


def test_a_right_model_is_not_accused(child: Child, checkpoint: Checkpoint) -> None:
    judged(child, "right", checkpoint)


def wrong(name: str, build: Callable[[], nn.Module], path: Path, device: torch.device) -> nn.Module:
    return WRONG[name](right(build, path, device), path)


spoilt = partial(wrong, "patches_equal")


def without_values(device: torch.device) -> None:
    """Rehearse nothing."""


def job(load: Load, checkpoint: Checkpoint, device: torch.device = CPU) -> Job:
    return Job(
        meter=partial(device_meter, str(device)),
        rehearse=without_values,
        load=partial(run_load, load, checkpoint),
        use=None,
        check=partial(check_model, checkpoint, device),
        again=True,
        judge=judge_of(checkpoint, device),
    )


def clock(load: Load, checkpoint: Checkpoint, device: torch.device) -> LoadClock:
    outputs = CachedOutputs(checkpoint, device)
    loading = partial(run_load, load, checkpoint)
    return LoadClock(loading, outputs.use, outputs.check, device_meter(str(device)), outputs=outputs.of)


ON_EITHER = pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=ON_CUDA)], ids=str)


@ON_EITHER
def test_who_measures_a_load_judges_it(checkpoint: Checkpoint, device: torch.device) -> None:
    one = job(right, checkpoint, device)
    with child_process(run, one, 30.0) as child:
        measure_child(child, one)


@ON_EITHER
@pytest.mark.parametrize("name", ["patches_equal", "patches_state_dict", "changes_by_thread", "wrong_last_bit"])
def test_who_measures_a_load_finds_it_wrong(name: str, checkpoint: Checkpoint, device: torch.device) -> None:
    one = job(partial(wrong, name), checkpoint, device)
    with (
        child_process(run, one, 30.0) as child,
        pytest.raises(LoadFailed, match=r"^WrongModel: trf_blocks.0.ff.layers.0.weight differs"),
    ):
        measure_child(child, one)


@ON_EITHER
def test_who_times_loads_judges_every_one(checkpoint: Checkpoint, device: torch.device) -> None:
    judge = judge_of(checkpoint, device)
    with remote_clock(partial(clock, right, checkpoint, device), 30.0, judge) as timed:
        for _ in range(2):
            timed.begin_round()
            timed.load_and_use()
        timed.finish_round()
        assert len(timed.readings().load_seconds) == 2
    with remote_clock(partial(clock, spoilt, checkpoint, device), 30.0, judge) as timed:
        timed.begin_round()
        timed.load_and_use()
        with pytest.raises(LoadFailed, match=r"^WrongModel: trf_blocks.0.ff.layers.0.weight differs"):
            timed.finish_round()


@pytest.mark.parametrize("replaced", ["finish_round", "begin_round", "_check"])
def test_what_a_loader_replaces_in_the_meter_does_not_hide_its_model(checkpoint: Checkpoint, replaced: str) -> None:
    load = partial(robbing, replaced)
    with remote_clock(partial(clock, load, checkpoint, CPU), 30.0, judge_of(checkpoint, CPU)) as timed:
        timed.begin_round()
        timed.load_and_use()
        with pytest.raises(LoadFailed, match=r"^WrongModel: trf_blocks.0.ff.layers.0.weight differs"):
            timed.finish_round()


def robbing(replaced: str, build: Callable[[], nn.Module], path: Path, device: torch.device) -> nn.Module:
    patch(LoadClock, replaced, lambda *_, **__: None)
    patch(bench.meters.child, "_check", lambda *_, **__: None)
    return spoilt(build, path, device)

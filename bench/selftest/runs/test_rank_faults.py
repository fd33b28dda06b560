"""Failures of one rank: all ranks end soon with one error that names the rank and the reason."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.checkpoint import state_dict_saver

from bench.measure.load_process import run_load
from bench.meters.child import Job
from bench.meters.process import child_process, telling_failures
from bench.sharded.measure_ranks import measure_ranks
from bench.sharded.rank_context import RankContext
from bench.sharded.rank_group import local_group
from bench.sharded.rank_jobs import context_of, rank_jobs, rank_load
from bench.sharded.rank_loads import RankLoad, rehearse_rank
from bench.sharded.recipes import SHARDED
from bench.sharded.rendezvous import RankFailed, RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.file_identity import file_identities
from model.checkpoints.making import make
from model.checkpoints.specification import Specification
from model.gpt2 import REHEARSAL
from model.parallel.division import BY_FSDP
from model.user.reference import Reference
from model.user.user_model import UserModel
from model.verification.verify import check_model

# Far more than what a load takes: who waits so long hangs.
LIMIT_SECONDS = 60.0

pytestmark = pytest.mark.ranks

NAMES = [name for name, strategy in SHARDED.items() if strategy.skip_reason is None]

Recipe = Callable[..., nn.Module]


def in_rank_1(fault: Callable[[], object], build: Any, path: Any, device: Any, parallelize: Any) -> nn.Module:
    """A load in the middle of which rank 1 has a fault, while rank 0 waits for it."""
    loaded: nn.Module = SHARDED["streamed"].function(build, path, device, parallelize)  # type: ignore[call-arg]
    # The small one that comes before is loaded as it should be.
    if "rehearsal" not in path.parent.name and distributed.get_rank() == 1:
        fault()
    distributed.barrier()
    return loaded


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_out() -> None:
    raise torch.OutOfMemoryError("there is no more of it")


def hang() -> None:
    time.sleep(LIMIT_SECONDS)


def dying(build: Any, path: Any, device: Any, parallelize: Any) -> nn.Module:
    return in_rank_1(die, build, path, device, parallelize)


@dataclass(frozen=True)
class Ranks:
    """Two ranks that load a small checkpoint, which need not be the same file for both: of GPT-2, or of the user's."""

    folder: Path
    user_model: UserModel | None = None

    def case(self, name: str) -> ShardedCase:
        size = "decoder" if self.user_model else REHEARSAL
        return ShardedCase(name, size, "cpu", "float32", user_model=self.user_model, group=local_group(2))

    def checkpoint(self, layout: str, name: str) -> Checkpoint:
        user_model = self.user_model if name != "rehearsal" else None
        specification = Specification("decoder" if user_model else REHEARSAL, "float32", layout, user_model)
        folder = self.folder / f"{layout}-{name}"
        if not folder.exists():
            folder.mkdir()
            make(specification, folder / "rehearsal" if name == "rehearsal" else folder / "checkpoint", lambda _: None)
        return self._in(specification, next(folder.iterdir()))

    def _in(self, specification: Specification, folder: Path) -> Checkpoint:
        return Checkpoint(specification, folder, file_identities(folder))

    def copied(self, checkpoint: Checkpoint) -> Checkpoint:
        """Copy the checkpoint, as another machine has it."""
        folder = self.folder / f"copy-{len(list(self.folder.iterdir()))}" / "checkpoint"
        shutil.copytree(checkpoint.folder, folder)
        return self._in(checkpoint.specification, folder)

    def load(
        self,
        name: str,
        *,
        recipe: Recipe | None = None,
        others: Mapping[int, Checkpoint] = MappingProxyType({}),
        seconds: float = LIMIT_SECONDS,
    ) -> None:
        case = self.case(name)
        whole, rehearsal = self.checkpoint(case.layout, "whole"), self.checkpoint(case.layout, "rehearsal")
        rendezvous = RankRendezvous(case.group)

        def jobs(group: str) -> Mapping[int, Job]:
            found = {}
            for rank, job in rank_jobs(case, rendezvous, whole, rehearsal)(group).items():
                checkpoint = others.get(rank, whole)
                load = rank_load(case, replace(context_of(case, rendezvous, group, rank), timeout_seconds=seconds))
                load = replace(load, recipe=recipe or load.recipe)
                found[rank] = replace(
                    job,
                    load=partial(run_load, load, checkpoint),
                    rehearse=partial(rehearse_rank, load, checkpoint, rehearsal, check_model),
                    check=partial(check_model, checkpoint, torch.device("cpu")),
                )
            return found

        measure_ranks(rendezvous, jobs, seconds)


# What the user's model is built by, and asked: it has a tied head, and a buffer that no checkpoint has.
DECODER = UserModel(Reference("bench.selftest.decoder:decoder"), Reference("bench.selftest.decoder:example"))


@pytest.fixture(scope="module", params=[None, DECODER], ids=["gpt2", "user's"])
def ranks(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Ranks:
    return Ranks(tmp_path_factory.mktemp("ranks"), request.param)


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < LIMIT_SECONDS


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wrong_with_them(name: str, ranks: Ranks) -> None:
    ranks.load(name)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (die, "the process of the load died: killed by SIGKILL, most likely by the kernel, out of memory"),
        (run_out, "OutOfMemoryError: there is no more of it"),
    ],
)
def test_a_rank_that_fails_is_named(fault: Callable[[], object], reason: str, ranks: Ranks) -> None:
    with pytest.raises(RankFailed) as caught:
        ranks.load("streamed", recipe=partial(in_rank_1, fault))
    assert str(caught.value) == f"rank 1 of 2: {reason}"


def test_a_rank_that_hangs_ends_with_the_others(ranks: Ranks) -> None:
    """The ranks wait for each other: none can tell which one hangs."""
    with pytest.raises(RankFailed, match=r"^rank [01] of 2: .*(not done within 6 s|[Tt]imed out)"):
        ranks.load("streamed", recipe=partial(in_rank_1, hang), seconds=6.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_rank_whose_file_is_truncated_is_named_with_the_file(name: str, ranks: Ranks) -> None:
    reads = 0 if name == "broadcast" else 1
    whole = ranks.checkpoint(SHARDED[name].layout, "whole")
    cut = ranks.copied(whole)
    largest = max(cut.files, key=lambda file: file.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    with pytest.raises(RankFailed, match=rf"^rank {reads} of 2: UntrustedCheckpoint: .*{largest.name}"):
        ranks.load(name, others={reads: cut})


@pytest.mark.parametrize("name", NAMES)
def test_a_rank_that_sees_another_file_is_named(name: str, ranks: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = SHARDED[name].layout
    for module in ("architecture", "user.user_model"):
        monkeypatch.setattr(f"model.{module}.SEED", 7)
    other = ranks.checkpoint(layout, "other")
    monkeypatch.undo()
    with pytest.raises(RankFailed, match=r"^rank 1 of 2: UntrustedCheckpoint: .* is another .* than rank 0 sees"):
        ranks.load(name, others={1: other})


def save_in_rank(connection: Any, asked: tuple[RankContext, Checkpoint, Path]) -> None:
    """In one of the ranks that save: what each of them has of the model goes into a file of its own."""
    context, saved, path = asked
    with telling_failures(connection):
        device = torch.device("cpu")
        context.join(device)
        strategy = SHARDED["streamed"]
        model = RankLoad(strategy.load, context, BY_FSDP)(saved.specification.build, saved.path, device)
        state_dict_saver.save(model.state_dict(), checkpoint_id=path)
        connection.send("saved")


@pytest.fixture
def of_three(ranks: Ranks) -> Checkpoint:
    """A distributed checkpoint that three ranks have saved."""
    pytest.importorskip("numpy")
    found = ranks.copied(ranks.checkpoint("dcp", "whole"))
    shutil.rmtree(found.path)
    rendezvous = RankRendezvous(local_group(3))
    saved = ranks.checkpoint("torch", "whole")
    group = rendezvous.name()
    contexts = [RankContext(rank, 3, group, rendezvous.address, 3, LIMIT_SECONDS) for rank in range(3)]
    with (
        child_process(save_in_rank, (contexts[0], saved, found.path), LIMIT_SECONDS) as first,
        child_process(save_in_rank, (contexts[1], saved, found.path), LIMIT_SECONDS) as second,
        child_process(save_in_rank, (contexts[2], saved, found.path), LIMIT_SECONDS) as third,
    ):
        children = dict(enumerate((first, second, third)))
        rendezvous.together(children, lambda _, child: child.receive(str, child.deadline()), LIMIT_SECONDS)
    assert len(list(found.path.glob("*.distcp"))) == 3
    return replace(found, file_identities=())


def test_what_another_number_of_ranks_has_saved_is_loaded_right(of_three: Checkpoint, ranks: Ranks) -> None:
    """It is what such a checkpoint is for."""
    whole = ranks.checkpoint("dcp", "whole")
    shutil.move(whole.path, whole.path.with_name("of-one"))
    shutil.copytree(of_three.path, whole.path)
    try:
        unstamped = replace(whole, file_identities=())
        ranks.load("dcp", others={0: unstamped, 1: unstamped})
    finally:
        shutil.rmtree(whole.path)
        shutil.move(whole.path.with_name("of-one"), whole.path)


def test_and_refused_where_one_of_their_files_is_not_there(of_three: Checkpoint, ranks: Ranks) -> None:
    (of_three.path / "__2_0.distcp").unlink()
    with pytest.raises(RankFailed, match=r"^rank 1 of 2: FileNotFoundError: .*__2_0\.distcp"):
        ranks.load("dcp", others={1: of_three})

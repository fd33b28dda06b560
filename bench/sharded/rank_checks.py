"""Small models of many kinds, loaded by ranks, gathered, and held against what was saved."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hypothesis import strategies
from torch import Tensor, nn

from bench.meters import kind_of
from bench.meters.process import Child, LoadEnded, child_process, telling_failures
from bench.sharded.rank_context import RankContext
from bench.sharded.rank_jobs import context_of, rank_load
from bench.sharded.rank_loads import RankLoad
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.architecture import DTYPES
from model.gpt2 import GPT2, Config, first_logits
from model.layouts.files import save_plain
from model.layouts.foreign import ALL_LAYOUTS
from model.run_folder import run_folder
from model.state_dict import first_names
from model.values.bits import difference
from model.verification.verify import WrongModel, check_logits

LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class DrawnGPT2:
    """A GPT-2: its sizes need not be multiples of the number of ranks, and its head may be its embedding."""

    config: Config
    dtype: str
    tied: bool
    seed: int

    def build(self) -> GPT2:
        """Random and non-zero on the host; a skeleton under `torch.device("meta")`."""
        torch.manual_seed(self.seed)
        model = GPT2(self.config, DTYPES[self.dtype])
        if self.tied:
            model.out_head.weight = model.tok_emb.weight
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        return model


@strategies.composite
def kinds(draw: strategies.DrawFn) -> DrawnGPT2:
    heads = draw(strategies.sampled_from((1, 2, 3)))
    config = Config(
        emb_dim=heads * draw(strategies.integers(1, 9)),
        layers=draw(strategies.integers(1, 2)),
        heads=heads,
        vocabulary=draw(strategies.integers(5, 70)),
        context=draw(strategies.integers(3, 12)),
    )
    dtype = draw(strategies.sampled_from(sorted(DTYPES)))
    return DrawnGPT2(config, dtype, draw(strategies.booleans()), draw(strategies.integers(0, 2**16)))


@dataclass(frozen=True)
class RankCheck:
    """A request to a rank: load what was saved of a kind of model; `exact`: with logits equal to the bit."""

    load: RankLoad
    kind: DrawnGPT2
    path: Path
    exact: bool


class RankChecks:
    """Processes of all ranks of a group, which stay for the next check; others where one failed."""

    def __init__(self, rendezvous: RankRendezvous) -> None:
        self._rendezvous = rendezvous
        self._stack, self._children, self._contexts = ExitStack(), dict[int, Child](), dict[int, RankContext]()

    def __enter__(self) -> "RankChecks":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._children.clear()

    def run(self, case: ShardedCase, kind: DrawnGPT2) -> None:
        """Save a model, and have all ranks load it as a case says. Raises `RankFailed` if any has another one then."""
        if not self._children:
            self._start(case)
        # FSDP2 computes what one device does, in the same order.
        exact, layout = case.parallelism == "fsdp", ALL_LAYOUTS[case.layout]
        with TemporaryDirectory(prefix="check-", dir=run_folder()) as folder:
            model = kind.build()
            layout.save_of(model, model.state_dict(), Path(folder), save_plain)
            path = Path(folder) / layout.entrance
            checks = {
                rank: RankCheck(rank_load(case, context), kind, path, exact) for rank, context in self._contexts.items()
            }
            try:
                self._rendezvous.together(self._children, lambda rank, child: _ask(child, checks[rank]), LIMIT_SECONDS)
            except LoadEnded:
                self.__exit__()
                raise

    def _start(self, case: ShardedCase) -> None:
        name = self._rendezvous.name()
        for rank in case.group.local:
            self._contexts[rank] = context_of(case, self._rendezvous, name, rank)
            place = self._contexts[rank], case.device_of(rank)
            self._children[rank] = self._stack.enter_context(child_process(_serve, place, LIMIT_SECONDS))


def _ask(child: Child, check: RankCheck) -> str:
    child.connection.send(check)
    return child.receive(str, child.deadline())


def _serve(connection: Connection, place: tuple[RankContext, str]) -> None:
    """In a rank: join the group, and answer requests until there are no more."""
    context, device = place
    with telling_failures(connection):
        context.join(kind_of(device).torch_device(device))
        while True:
            try:
                check: RankCheck = connection.recv()
            except EOFError:
                return
            try_out(check, kind_of(device).torch_device(device))
            connection.send("right")


def try_out(check: RankCheck, device: torch.device) -> None:
    """Raise `WrongModel` unless what is loaded, and gathered from all ranks, is what was saved."""
    saved = check.kind.build()
    loaded = check.load(check.kind.build, check.path, device)
    for name, tensor in (*loaded.named_parameters(), *loaded.named_buffers()):
        if tensor.device.type != device.type:
            raise WrongModel(f"{name} is on {tensor.device}, not on {device}")
    gathered, wanted = gathered_state_dict(loaded), saved.state_dict()
    if list(gathered) != list(wanted):
        raise WrongModel(f"the names are {sorted(gathered)}, where {sorted(wanted)} were saved")
    for name, tensor in wanted.items():
        if differing := difference(gathered[name], tensor):
            raise WrongModel(f"{name} {differing}")
    if (ties := first_names(loaded.state_dict())) != first_names(wanted):
        raise WrongModel(f"tied are {ties}, where {first_names(wanted)} were saved")
    logits, expected = first_logits(loaded).cpu(), first_logits(saved)
    check_logits(logits, expected)
    if check.exact and device.type == "cpu" and not torch.equal(logits, expected):
        raise WrongModel("the first logits differ from those of one device, where the same is computed")


def gathered_state_dict(model: nn.Module) -> Mapping[str, Tensor]:
    """The state dict of a divided model, every tensor whole, in every rank."""
    return {
        name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        for name, tensor in model.state_dict().items()
    }

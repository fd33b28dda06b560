"""Small models of many kinds, loaded by ranks, gathered, and held against what was saved."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

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
from model.checkpoints.checkpoint import Checkpoint
from model.gpt2 import GPT2, Config, first_logits
from model.layouts.files import save_plain
from model.layouts.foreign import ALL_LAYOUTS
from model.run_folder import run_folder
from model.state_dict import first_names
from model.user.user_model import UserModel
from model.values.bits import difference, is_on, same_value
from model.verification.verify import WrongModel, check_logits, check_outputs

LIMIT_SECONDS = 60.0


class SavedModel(Protocol):
    """A model that was saved, and that every process can make again."""

    def build(self) -> nn.Module:
        """Build it anew; a skeleton under `torch.device("meta")`."""

    def saved(self) -> nn.Module:
        """Return it as a load has to return it, on the host."""

    def check_outputs(self, loaded: nn.Module, saved: nn.Module, *, exact: bool) -> None:
        """Raise `WrongModel` if a loaded model computes something else; `exact`: to the bit."""


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

    def saved(self) -> GPT2:
        return self.build()

    def check_outputs(self, loaded: nn.Module, saved: nn.Module, *, exact: bool) -> None:
        logits, expected = first_logits(loaded).cpu(), first_logits(saved)
        check_logits(logits, expected)
        if exact and not torch.equal(logits, expected):
            raise WrongModel("the first logits differ from those of one device, where the same is computed")


@dataclass(frozen=True)
class SavedUserModel:
    """The user's model in a checkpoint."""

    checkpoint: Checkpoint

    @property
    def _model(self) -> UserModel:
        model = self.checkpoint.specification.user_model
        assert model
        return model

    def build(self) -> nn.Module:
        return self._model.build()

    def saved(self) -> nn.Module:
        return self._model.as_loaded(self._model.saved(lambda _: None))

    def check_outputs(self, loaded: nn.Module, saved: nn.Module, *, exact: bool) -> None:
        del saved, exact  # The outputs that were recorded with the checkpoint know where they can be compared.
        check_outputs(self.checkpoint, self._model.outputs(loaded))


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
    """A request to a rank: load what was saved of a model; `exact`: with logits equal to the bit.

    `keywords` are arguments of the load.
    """

    load: RankLoad
    model: SavedModel
    path: Path
    exact: bool
    keywords: Mapping[str, Any]


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
        layout = ALL_LAYOUTS[case.layout]
        with TemporaryDirectory(prefix="check-", dir=run_folder()) as folder:
            model = kind.build()
            layout.save_of(model, model.state_dict(), Path(folder), save_plain)
            # FSDP2 computes what one device does, in the same order.
            exact = case.parallelism == "fsdp" and case.kind.is_host
            self._check(case, kind, Path(folder) / layout.entrance, LIMIT_SECONDS, exact=exact)

    def run_user_model(self, case: ShardedCase, checkpoint: Checkpoint) -> None:
        """Have all ranks load the user's checkpoint. Raises as `run` does."""
        self._check(case, SavedUserModel(checkpoint), checkpoint.path, case.timeout_seconds, exact=False)

    def _check(self, case: ShardedCase, model: SavedModel, path: Path, seconds: float, *, exact: bool) -> None:
        if not self._children:
            self._start(case)
        keywords = case.specification.keywords
        checks = {
            rank: RankCheck(rank_load(case, context), model, path, exact, keywords)
            for rank, context in self._contexts.items()
        }
        try:
            self._rendezvous.together(self._children, lambda rank, child: _ask(child, checks[rank], seconds), seconds)
        except LoadEnded:
            self.__exit__()
            raise

    def _start(self, case: ShardedCase) -> None:
        name = self._rendezvous.name()
        for rank in case.group.local:
            self._contexts[rank] = context_of(case, self._rendezvous, name, rank)
            place = self._contexts[rank], case.device_of(rank)
            self._children[rank] = self._stack.enter_context(child_process(_serve, place, LIMIT_SECONDS))


def _ask(child: Child, check: RankCheck, seconds: float) -> str:
    child.connection.send(check)
    return child.receive(str, time.monotonic() + seconds)


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
    saved = check.model.saved()
    loaded = check.load(check.model.build, check.path, device, **check.keywords)
    for name, tensor in (*loaded.named_parameters(), *loaded.named_buffers()):
        if not is_on(tensor, device):
            raise WrongModel(f"{name} is on {tensor.device}, not on {device}")
    gathered, wanted = gathered_state_dict(loaded), saved.state_dict()
    if list(gathered) != list(wanted):
        changes = [f"{name} is missing" for name in wanted if name not in gathered]
        changes += [f"{name} is new" for name in gathered if name not in wanted]
        raise WrongModel(f"the names are not those that were saved: {[*changes, 'their order is another one'][0]}")
    gathered |= dict(loaded.named_buffers())
    for name, value in {**wanted, **dict(saved.named_buffers())}.items():
        if isinstance(value, Tensor):
            if differing := difference(gathered[name], value):
                raise WrongModel(f"{name} {differing}")
        elif not same_value(gathered[name], value):
            raise WrongModel(f"{name} is {gathered[name]!r}, saved as {value!r}")
    _require_same_ties(first_names(loaded.state_dict()), first_names(wanted))
    _require_same_modes(loaded, saved)
    check.model.check_outputs(loaded, saved, exact=check.exact)


def _require_same_ties(found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name, first in wanted.items():
        if found[name] != first:
            was, now = (
                "a tensor of its own" if one == name else f"one tensor with {one}" for one in (first, found[name])
            )
            raise WrongModel(f"{name} was {was}, and is {now}")


def _require_same_modes(loaded: nn.Module, saved: nn.Module) -> None:
    """Raise `WrongModel` for parameters that are frozen, or modules that are trained, where the saved ones are not."""
    trained = {name: parameter.requires_grad for name, parameter in saved.named_parameters()}
    for name, parameter in loaded.named_parameters():
        if parameter.requires_grad != trained[name]:
            raise WrongModel(
                f"{name} {'requires' if trained[name] else 'does not require'} gradients in the saved model"
            )
    modes = {name: module.training for name, module in saved.named_modules()}
    for name, module in loaded.named_modules():
        if module.training != modes.get(name, module.training):
            mode = "training" if modes[name] else "evaluation"
            raise WrongModel(f"{name or 'the model'} is in {mode} mode in the saved model, and in the other one here")


def gathered_state_dict(model: nn.Module) -> dict[str, Any]:
    """The state dict of a divided model, every tensor whole, in every rank."""
    return {
        name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        for name, tensor in model.state_dict().items()
    }

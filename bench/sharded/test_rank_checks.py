"""Checks of gathered models, each seen to fail, in the only rank of a group."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed import HashStore
from torch.distributed.device_mesh import init_device_mesh

from bench.sharded.rank_checks import RankCheck, SavedUserModel, try_out
from bench.sharded.recipes import SHARDED
from bench.strategies.reading.shards import local
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.specification import Specification
from model.parallel.division import Division
from model.user.reference import Reference
from model.user.user_model import UserModel
from model.verification.verify import WrongModel

CPU = torch.device("cpu")
DECODER = UserModel(Reference("bench.selftest.decoder:decoder"), Reference("bench.selftest.decoder:example"))
# With one rank FSDP2 computes nothing in inference mode.
DIVISION = Division("tensor", tp_plan=Reference("bench.selftest.decoder:PLAN"))


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def load(build: Any, path: Path, device: torch.device, **keywords: Any) -> nn.Module:
    mesh = init_device_mesh("cpu", (1,))
    recipe: Any = SHARDED["mmap_shards"].function
    loaded: nn.Module = recipe(build, path, device, lambda model: DIVISION.apply(model, mesh), **keywords)
    return loaded


@pytest.fixture
def checked(real_checkpoint: Callable[[Specification], Checkpoint]) -> Callable[..., None]:
    """Checks a load of the user's model that a fault is put into."""

    def check(fault: Callable[[nn.Module], object], cast: str = "") -> None:
        user_model = UserModel(DECODER.factory, DECODER.example, cast=cast)
        checkpoint = real_checkpoint(Specification("decoder", "float32", "torch", user_model, cast=cast))

        def faulty(*arguments: Any, **keywords: Any) -> nn.Module:
            model = load(*arguments, **keywords)
            with torch.no_grad():
                fault(model)
            return model

        keywords = checkpoint.specification.keywords
        try_out(
            RankCheck(faulty, SavedUserModel(checkpoint), checkpoint.path, exact=False, keywords=keywords),  # type: ignore[arg-type]
            CPU,
        )

    return check


@pytest.mark.parametrize("cast", ["", "bfloat16"])
def test_a_right_load_is_right(checked: Callable[..., None], cast: str) -> None:
    checked(lambda _: None, cast)


def one_value(model: nn.Module) -> None:
    local(model.get_parameter("blocks.1.up_proj.weight"))[3, 2] += 1


def a_buffer(model: nn.Module) -> None:
    model.get_buffer("positions")[1, 1] += 1


def a_name(model: nn.Module) -> None:
    model.register_buffer("more", torch.ones(2))


def a_tie(model: nn.Module) -> None:
    embedding: Any = model.get_submodule("embedding")
    embedding.weight = nn.Parameter(embedding.weight.detach().clone())


def frozen(model: nn.Module) -> None:
    model.get_parameter("blocks.0.up_proj.bias").requires_grad = False


def evaluated(model: nn.Module) -> None:
    model.get_submodule("blocks.0").eval()


def another_place(model: nn.Module) -> None:
    model.register_buffer("positions", model.get_buffer("positions").to("meta"), persistent=False)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (one_value, r"^blocks\.1\.up_proj\.weight differs in 1 of 1,024 values"),
        (a_buffer, r"^positions differs in 1 of 128 values"),
        (a_name, r"^the names are not those that were saved: more is new$"),
        (a_tie, r"^head\.weight was one tensor with embedding\.weight, and is a tensor of its own$"),
        (frozen, r"^blocks\.0\.up_proj\.bias requires gradients in the saved model$"),
        (evaluated, r"^blocks\.0 is in training mode in the saved model, and in the other one here$"),
        (another_place, r"^positions is on meta, not on cpu"),
    ],
)
def test_a_wrong_load_is_told(fault: Callable[[nn.Module], object], message: str, checked: Callable[..., None]) -> None:
    with pytest.raises(WrongModel, match=message):
        checked(fault)


def test_a_load_without_its_cast_is_told(checked: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Specification, "keywords", {})
    with pytest.raises(WrongModel, match=r"^\w+ is torch\.float32, saved as torch\.bfloat16"):
        checked(lambda _: None, "bfloat16")


def test_outputs_are_compared(checked: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = UserModel.outputs
    checked(lambda _: None)
    monkeypatch.setattr(UserModel, "outputs", lambda *given: [2 * one for one in outputs(*given)])
    with pytest.raises(WrongModel, match=r"^the first logits are off"):
        checked(lambda _: None)

"""Promises of every recipe of the table: it can be pasted, and it loads where there is but one rank."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from inspect import getsource, signature
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed import HashStore
from torch.distributed.device_mesh import init_device_mesh

from bench.conformance.poison import poisoned
from bench.sharded.recipes import SHARDED, ShardedStrategy, streamed
from bench.strategies.inline_recipe import READING, pasteable
from bench.strategies.reading.shards import is_replicated, local
from bench.strategies.test_recipes import imported
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.checkpoints.specification import Specification
from model.gpt2 import REHEARSAL
from model.parallel.division import BY_FSDP, PARALLELISMS, Division
from model.user.reference import Reference
from model.user.user_model import UserModel
from model.verification.verify import check_weights

CPU = torch.device("cpu")

every_strategy = pytest.mark.parametrize("strategy", SHARDED.values(), ids=SHARDED)


@every_strategy
def test_a_recipe_wants_torch_and_the_standard_library_only(strategy: ShardedStrategy) -> None:
    """Beside what recipes have in common, of which `test_recipes` says the same."""
    path = Path(strategy.source)
    assert path.parent == Path(__file__).parent
    others = {name for name in imported(path) if not name.startswith(READING)}
    assert others <= {"torch", *sys.stdlib_module_names}
    assert "bench" not in pasteable(strategy)
    assert f"`model = {strategy.name}(build, path, device, parallelize)`" in pasteable(strategy).splitlines()[0]
    assert strategy.function.__doc__
    assert len(getsource(strategy.function).splitlines()) < 50


@every_strategy
def test_a_recipe_wants_nothing_that_is_not_given_to_all(strategy: ShardedStrategy) -> None:
    wanted = signature(strategy.function)
    assert list(wanted.parameters)[:4] == ["build", "path", "device", "parallelize"]
    wanted.bind("build", "path", "device", "parallelize")


@pytest.fixture
def alone() -> Iterator[None]:
    """The only rank of a real group."""
    distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("way", PARALLELISMS)
@every_strategy
def test_a_rank_alone_has_all_that_was_saved(
    strategy: ShardedStrategy, way: str, alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if strategy.skip_reason:
        pytest.skip(strategy.skip_reason)
    # So that a shard takes several reads, and the last is shorter.
    monkeypatch.setattr(streamed, "READ_BYTES", 1000)
    specification = Specification(REHEARSAL, "float32", strategy.layout)
    make(specification, tmp_path / "made", lambda _: None)
    mesh = init_device_mesh("cpu", (1,))

    def parallelize(model: nn.Module) -> nn.Module:
        return Division(way).apply(model, mesh)

    checkpoint = Checkpoint(specification, tmp_path / "made")
    recipe: Any = strategy.function
    with poisoned():
        model = recipe(specification.build, checkpoint.path, CPU, parallelize)
    check_weights(checkpoint, CPU, model)
    divided = [parameter for parameter in model.parameters() if not is_replicated(parameter)]
    assert divided
    assert all(local(parameter).shape == parameter.shape for parameter in divided)


DECODER = UserModel(Reference("bench.selftest.decoder:decoder"))


@pytest.mark.parametrize("cast", ["", "bfloat16"])
@pytest.mark.parametrize(
    ("strategy", "layout"), [(strategy, layout) for strategy in SHARDED.values() for layout in strategy.layouts]
)
def test_a_rank_alone_has_all_of_the_users_model(
    strategy: ShardedStrategy,
    layout: str,
    cast: str,
    alone: None,
    real_checkpoint: Callable[[Specification], Checkpoint],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From every layout that it takes, with a tied head, and with a buffer that no checkpoint has."""
    if strategy.skip_reason:
        pytest.skip(strategy.skip_reason)
    monkeypatch.setattr(streamed, "READ_BYTES", 100)
    user_model = replace(DECODER, cast=cast)
    checkpoint = real_checkpoint(Specification("decoder", "float32", layout, user_model, cast=cast))
    mesh = init_device_mesh("cpu", (1,))
    recipe: Any = strategy.function
    with poisoned():
        model = recipe(
            user_model.build,
            checkpoint.path,
            CPU,
            lambda model: BY_FSDP.apply(model, mesh),
            **checkpoint.specification.keywords,
        )
    check_weights(checkpoint, CPU, model)
    assert model.get_parameter("head.weight") is model.get_parameter("embedding.weight")
    # What no checkpoint has is not cast, as in other loads.
    assert model.get_buffer("positions").dtype == torch.float32

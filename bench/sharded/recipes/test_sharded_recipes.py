"""Promises of every recipe of the table: it can be pasted, and it loads where there is but one rank."""

import sys
from collections.abc import Iterator
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
from model.parallel import PARALLELISMS
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
        return PARALLELISMS[way].apply(model, mesh)

    checkpoint = Checkpoint(specification, tmp_path / "made")
    recipe: Any = strategy.function
    with poisoned():
        model = recipe(specification.build, checkpoint.path, CPU, parallelize)
    check_weights(checkpoint, CPU, model)
    divided = [parameter for parameter in model.parameters() if not is_replicated(parameter)]
    assert divided
    assert all(local(parameter).shape == parameter.shape for parameter in divided)

from collections.abc import Iterator
from itertools import chain

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from model.gpt2 import CONFIGS, GPT2
from model.parallel.division import PARALLELISMS, Division


def gpt2(size: str, *, tied: bool) -> GPT2:
    """A skeleton."""
    with torch.device("meta"):
        model = GPT2(CONFIGS[size])
    if tied:
        model.out_head.weight = model.tok_emb.weight
    return model


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict((*model.named_parameters(), *model.named_buffers()))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("parallelism", PARALLELISMS)
def test_what_is_divided_is_there(parallelism: str, tied: bool) -> None:
    model, divides = gpt2("small", tied=tied), Division(parallelism)
    there, dimensions = tensors(model), divides.dimensions(model)
    assert dimensions.keys() <= there.keys()
    assert all(dimension is None or dimension < there[name].ndim for name, dimension in dimensions.items())
    # Each is divided once.
    units = list(chain.from_iterable(divides.units(model)))
    assert len(units) == len(set(units))
    assert dimensions.keys() <= set(units) <= there.keys()


@pytest.mark.parametrize("tied", [False, True])
def test_all_of_a_model_is_in_one_unit_block_by_block(tied: bool) -> None:
    """The name of the second block begins that of the twelfth."""
    model = gpt2("small", tied=tied)
    *blocks, rest = Division("fsdp").units(model)
    assert sorted(chain(*blocks, rest)) == sorted(tensors(model))
    of_block = [f"trf_blocks.0.{name}" for name in tensors(model.trf_blocks[0])]
    assert [sorted(unit) for unit in blocks] == [
        sorted(name.replace(".0.", f".{number}.", 1) for name in of_block) for number in range(12)
    ]
    head = [] if tied else ["out_head.weight"]
    assert sorted(rest) == sorted(["tok_emb.weight", "pos_emb.weight", "final_norm.scale", "final_norm.shift", *head])


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """A mesh of two ranks, the other of which does not exist."""
    from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: PLC0415 - registers its backend

    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield init_device_mesh("cpu", (2,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("parallelism", PARALLELISMS)
def test_a_model_is_divided_as_is_said(parallelism: str, tied: bool, mesh: DeviceMesh) -> None:
    from torch.distributed.tensor import DTensor, Replicate, Shard  # noqa: PLC0415 - it takes a second

    model, divides = gpt2("rehearsal", tied=tied), Division(parallelism)
    said = divides.dimensions(model)
    divided = tensors(divides.apply(model, mesh))
    found = {name: tensor.placements for name, tensor in divided.items() if isinstance(tensor, DTensor)}
    assert found == {
        name: (Replicate() if dimension is None else Shard(dimension),) for name, dimension in said.items()
    }
    assert model.out_head.weight is model.tok_emb.weight or not tied


def test_what_is_tied_stays_whole_where_layers_are_in_parts() -> None:
    """An embedding in parts by its vocabulary is no head in parts by its vocabulary: each is told what it gets."""
    ends = {"tok_emb.weight", "out_head.weight"}
    for tied, expected in ((False, ends), (True, set[str]())):
        model = gpt2("small", tied=tied)
        assert ends & Division("tensor").dimensions(model).keys() == expected
        assert ends & set(chain(*Division("tensor").units(model))) == expected

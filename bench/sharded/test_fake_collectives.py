"""Stand-ins for parts of PyTorch, held against PyTorch."""

import pytest
import torch
from torch.distributed.fsdp._fully_shard._fsdp_common import _chunk_with_empty

from bench.sharded.fake_collectives import Chunks


@pytest.mark.parametrize("shape", [(7, 3), (8, 3), (1, 3), (0, 3), (12,)])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 64])
def test_chunks_are_those_of_fsdp(shape: tuple[int, ...], count: int) -> None:
    for dim in range(len(shape)):
        tensor = torch.arange(float(torch.Size(shape).numel())).view(shape)
        expected, found = _chunk_with_empty(tensor, count, dim), Chunks(tensor, count, dim)
        assert len(found) == len(expected) == count
        for index in (*range(count), -1):
            assert found[index].shape == expected[index].shape
            assert torch.equal(found[index], expected[index])
            # Views of the tensor.
            assert not expected[index].numel() or found[index].data_ptr() == expected[index].data_ptr()
        assert [one.shape for one in found[1:3]] == [one.shape for one in expected[1:3]]
        with pytest.raises(IndexError):
            found[count]

from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from bench.strategies.reading.assign import cast
from bench.strategies.reading.read_checkpoint import read
from bench.strategies.reading.shards import materialize, skeleton_to_shard


def broadcast(build, path, device, parallelize, *, dtype=None):
    """Map the file in rank 0, and broadcast tensor by tensor from there: every rank keeps its shard.

    With a `dtype`, rank 0 has all that is cast in host memory.
    """
    model = skeleton_to_shard(build, dtype)
    reads = distributed.get_rank() == 0
    state_dict = read(path, "cpu", model, mmap=True) if reads else {}
    parallelize(model)
    materialize(model, device)
    if dtype:
        state_dict = cast(state_dict, dtype, "cpu")
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, state_dict, options=options)
    return model

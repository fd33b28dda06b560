import torch
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from bench.strategies.reading.shards import materialize, skeleton_to_shard


def broadcast(build, path, device, parallelize):
    """Map the file in rank 0, and broadcast tensor by tensor from there: every rank keeps its shard."""
    model = skeleton_to_shard(build)
    parallelize(model)
    materialize(model, device)
    reads = distributed.get_rank() == 0
    state_dict = torch.load(path, map_location="cpu", weights_only=True, mmap=True) if reads else {}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, state_dict, options=options)
    return model

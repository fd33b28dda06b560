import torch

from bench.strategies.reading.assign import load_extra_state, weights
from bench.strategies.reading.fit import require_fit, require_plain
from bench.strategies.reading.read_checkpoint import read
from bench.strategies.reading.shards import local, materialize, part, skeleton_to_shard


def mmap_shards(build, path, device, parallelize, *, dtype=None):
    """Map the file in every rank, and copy its shards from there to the device."""
    model = skeleton_to_shard(build, dtype)
    require_plain(model)
    state_dict = read(path, "cpu", model, mmap=True)
    require_fit(path, model, state_dict, dtype)
    parallelize(model)
    materialize(model, device)
    with torch.no_grad():
        for name, tensor in weights(model).items():
            local(tensor).copy_(state_dict[name][part(tensor)])
    load_extra_state(model, state_dict)
    return model

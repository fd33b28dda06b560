import torch

from bench.strategies.reading.fit import require_fit, require_persistent, swap_in
from bench.strategies.reading.state_dict import read


def mmap_assign(build, path, device):
    """Map the checkpoint and make its tensors the parameters and buffers of a meta skeleton."""
    with torch.device("meta"):
        model = build()
    require_persistent(model)
    state_dict = read(path, device, model, mmap=True)
    # What is swapped in brings its own dtype, shape, strides and ties along.
    require_fit(path, model, state_dict)
    swap_in(model, state_dict)
    return model

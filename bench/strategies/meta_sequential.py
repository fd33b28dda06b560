import torch

from bench.strategies.reading.fit import (
    load_extra_state,
    require_fit,
    require_persistent,
    require_plain,
    swap,
    swappable,
)
from bench.strategies.reading.state_dict import read


def meta_sequential(build, path, device):
    """Allocate a meta skeleton on the device uninitialised, and copy a state dict that is on the device too."""
    with torch.device("meta"):
        model = build()
    require_persistent(model)
    require_plain(model)
    # One module after the other, as `to_empty` does it: all parameters before all buffers would leave more gaps in a
    # GPU's memory.
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    with swappable(model):
        for tensor in [tensors[name] for name in model.state_dict() if name in tensors]:
            swap(tensor, torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device))
    state_dict = read(path, device, model)
    # `copy_` broadcasts and casts, and lets the last of several tied names win.
    require_fit(path, model, state_dict)
    load_extra_state(model, state_dict)
    # The model's state dict shares the model's memory, outside autograd, and has its buffers too.
    for name, destination in model.state_dict().items():
        if not name.endswith("_extra_state"):
            destination.copy_(state_dict[name])
    return model

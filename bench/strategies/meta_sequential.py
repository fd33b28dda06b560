import torch

from bench.strategies.reading.fit import load_extra_state, require_fit, require_persistent
from bench.strategies.reading.state_dict import read


def meta_sequential(build, path, device):
    """Allocate a meta skeleton on the device uninitialised, and copy a state dict that is on the device too."""
    with torch.device("meta"):
        model = build()
    require_persistent(model)
    # `to_empty` would untie: a tensor that is swapped stays itself to all of its names, and to an optimizer. One module
    # after the other, as there: all parameters before all buffers would leave more gaps in a GPU's memory.
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    for tensor in [tensors[name] for name in model.state_dict() if name in tensors]:
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        if isinstance(tensor, torch.nn.Parameter):
            empty = torch.nn.Parameter(empty, tensor.requires_grad)
        torch.utils.swap_tensors(tensor, empty)
    state_dict = read(path, device, model)
    # `copy_` broadcasts and casts, and lets the last of several tied names win.
    require_fit(path, model, state_dict)
    load_extra_state(model, state_dict)
    # The model's state dict shares the model's memory, outside autograd, and has its buffers too.
    for name, destination in model.state_dict().items():
        if not name.endswith("_extra_state"):
            destination.copy_(state_dict[name])
    return model

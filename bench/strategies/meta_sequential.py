import torch


def meta_sequential(build, path, device):
    """Allocate a meta skeleton on the device uninitialised, and copy a state dict that is on the device too."""
    with torch.device("meta"):
        model = build()
    # `to_empty` would untie: a tensor that is swapped stays itself to all of its names, and to an optimizer.
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        if isinstance(tensor, torch.nn.Parameter):
            empty = torch.nn.Parameter(empty, tensor.requires_grad)
        torch.utils.swap_tensors(tensor, empty)
    state_dict = torch.load(path, map_location=device, weights_only=True)

    # Everything that the skeleton has no value for: buffers that are in no state dict too.
    destination = dict(model.named_parameters(remove_duplicate=False))
    destination |= dict(model.named_buffers(remove_duplicate=False))

    def form(tensors):
        first = {}  # The first name of every storage: tied names have it in common.
        return {
            (name, t.dtype, t.shape, t.stride(), first.setdefault(t.untyped_storage(), name))
            if isinstance(t, torch.Tensor)
            else (name,)
            for name, t in tensors.items()
        }

    # `copy_` broadcasts and casts, and lets the last of several tied names win.
    if differing := form(destination) ^ form(state_dict):
        raise ValueError(f"{path} does not fit the model in {', '.join(sorted({name for name, *_ in differing}))}")
    for name, tensor in destination.items():
        tensor.detach().copy_(state_dict[name])
    return model

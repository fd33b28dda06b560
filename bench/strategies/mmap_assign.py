import torch


def mmap_assign(build, path, device):
    """Map the checkpoint and make its tensors the parameters and buffers of a meta skeleton."""
    with torch.device("meta"):
        model = build()
    state_dict = torch.load(path, map_location=device, weights_only=True, mmap=True)

    # Everything that the skeleton has no value for: buffers that are in no state dict too.
    skeleton = dict(model.named_parameters(remove_duplicate=False))
    skeleton |= dict(model.named_buffers(remove_duplicate=False))

    def form(tensors):
        first = {}  # The first name of every storage: tied names have it in common.
        return {
            (name, t.dtype, t.shape, t.stride(), first.setdefault(t.untyped_storage(), name))
            if isinstance(t, torch.Tensor)
            else (name,)
            for name, t in tensors.items()
        }

    # An assigned tensor brings its own dtype, strides and sharing along.
    if differing := form(skeleton) ^ form(state_dict):
        raise ValueError(f"{path} does not fit the model in {', '.join(sorted({name for name, *_ in differing}))}")
    # `load_state_dict(assign=True)` would untie: a tensor that is swapped stays itself to all of its names.
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        saved = state_dict[name]
        if isinstance(tensor, torch.nn.Parameter):
            saved = torch.nn.Parameter(saved, tensor.requires_grad)
        torch.utils.swap_tensors(tensor, saved)
    return model

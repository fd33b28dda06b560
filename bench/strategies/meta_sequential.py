import torch


def meta_sequential(build, path, device):
    """Allocate a meta skeleton on the device uninitialised, and copy a state dict that is on the device too."""
    with torch.device("meta"):
        model = build()
    # What no checkpoint holds, and meta has no value for.
    if lost := sorted(dict(model.named_buffers(remove_duplicate=False)).keys() - model.state_dict().keys()):
        raise ValueError(f"{lost} are not persistent: they have values only where the model is built on {device}")
    # `to_empty` would untie: a tensor that is swapped stays itself to all of its names, and to an optimizer. One module
    # after the other, as there: all parameters before all buffers would leave more gaps in a GPU's memory.
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    for tensor in [tensors[name] for name in model.state_dict() if name in tensors]:
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        if isinstance(tensor, torch.nn.Parameter):
            empty = torch.nn.Parameter(empty, tensor.requires_grad)
        torch.utils.swap_tensors(tensor, empty)
    state_dict = torch.load(path, map_location=device, weights_only=True)

    def form(tensors):
        found, first = set(), {}  # `first`: of every storage the first name, and where it starts. Tied names share it.
        for name, t in sorted(tensors.items()):
            if name.endswith("_extra_state"):
                found.add((name,))
            else:
                other, start = first.setdefault(t.untyped_storage() if t.numel() else name, (name, t.storage_offset()))
                found.add((name, t.dtype, t.shape, t.stride(), other, t.storage_offset() - start))
        return found

    # The model's state dict shares the model's memory, outside autograd, and has its buffers too.
    destination = model.state_dict()
    # `copy_` broadcasts and casts, and lets the last of several tied names win.
    if differing := form(destination) ^ form(state_dict):
        names = sorted({name for name, *_ in differing})
        raise ValueError(f"{path} and the model differ in names, dtypes, shapes, strides or ties: {names}")
    extra = {name: state_dict.pop(name) for name in destination if name.endswith("_extra_state")}
    for name, tensor in state_dict.items():
        destination[name].copy_(tensor)
    model.load_state_dict(extra, strict=False)
    return model

import torch


def mmap_assign(build, path, device):
    """Map the checkpoint and make its tensors the parameters and buffers of a meta skeleton."""
    with torch.device("meta"):
        model = build()
    # What no checkpoint holds, and meta has no value for.
    if lost := sorted(dict(model.named_buffers(remove_duplicate=False)).keys() - model.state_dict().keys()):
        raise ValueError(f"{lost} are not persistent: they have values only where the model is built on {device}")
    state_dict = torch.load(path, map_location=device, weights_only=True, mmap=True)

    def form(tensors):
        found, first = set(), {}  # `first`: of every storage the first name, and where it starts. Tied names share it.
        for name, t in sorted(tensors.items()):
            if name.endswith("_extra_state"):
                found.add((name,))
            else:
                other, start = first.setdefault(t.untyped_storage() if t.numel() else name, (name, t.storage_offset()))
                found.add((name, t.dtype, t.shape, t.stride(), other, t.storage_offset() - start))
        return found

    # What is assigned brings its own dtype, shape, strides and ties along.
    if differing := form(model.state_dict()) ^ form(state_dict):
        names = sorted({name for name, *_ in differing})
        raise ValueError(f"{path} and the model differ in names, dtypes, shapes, strides or ties: {names}")
    # `load_state_dict(assign=True)` would untie: a tensor that is swapped stays itself to all of its names.
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        saved = state_dict[name]
        if isinstance(tensor, torch.nn.Parameter):
            saved = torch.nn.Parameter(saved, tensor.requires_grad)
        torch.utils.swap_tensors(tensor, saved)
    extra = {name: state_dict[name] for name in state_dict if name.endswith("_extra_state")}
    model.load_state_dict(extra, strict=False)
    return model

import torch


def sequential(build, path, device):
    """Put the model on the device and the state dict on the host, and move one tensor at a time."""
    model = build().to(device)
    state_dict = torch.load(path, map_location="cpu", weights_only=True)

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
        destination[name].copy_(tensor.to(device))
    model.load_state_dict(extra, strict=False)
    return model

import torch


def baseline(build, path, device):
    """Build the model on the host, move it to the device, and copy a state dict that is on the device too."""
    model = build().to(device)
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

    # `load_state_dict` casts to the model's dtype, and lets the last of several tied names win.
    if differing := form(model.state_dict()) ^ form(state_dict):
        names = sorted({name for name, *_ in differing})
        raise ValueError(f"{path} and the model differ in names, dtypes, shapes, strides or ties: {names}")
    model.load_state_dict(state_dict)
    return model

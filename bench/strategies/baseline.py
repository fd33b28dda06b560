import torch


def baseline(build, path, device):
    """Build the model on the host, move it to the device, and copy a state dict that is on the device too."""
    model = build().to(device)
    state_dict = torch.load(path, map_location=device, weights_only=True)

    def form(tensors):
        first = {}  # The first name of every storage: tied names have it in common.
        return {
            (name,)
            if name.endswith("_extra_state")
            else (name, t.dtype, t.shape, t.stride(), t.numel() and first.setdefault(t.untyped_storage(), name))
            for name, t in sorted(tensors.items())
        }

    # `load_state_dict` casts to the model's dtype, and lets the last of several tied names win.
    if differing := form(model.state_dict()) ^ form(state_dict):
        names = sorted({name for name, *_ in differing})
        raise ValueError(f"{path} and the model differ in names, dtypes, shapes, strides or ties: {names}")
    model.load_state_dict(state_dict)
    return model

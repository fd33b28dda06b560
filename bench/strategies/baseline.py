import torch


def baseline(build, path, device):
    """Build the model on the host, move it to the device, and copy a state dict that is on the device too."""
    model = build().to(device)
    state_dict = torch.load(path, map_location=device, weights_only=True)

    def form(tensors):
        first = {}  # The first name of every storage: names that share one are told apart by nothing else.
        return {
            (name, t.dtype, t.shape, t.stride(), first.setdefault(t.untyped_storage(), name))
            if isinstance(t, torch.Tensor)
            else (name,)
            for name, t in tensors.items()
        }

    # `load_state_dict` casts to the model's dtype, and lets the last of several tied names win.
    if differing := form(model.state_dict()) ^ form(state_dict):
        raise ValueError(f"{path} does not fit the model in {', '.join(sorted({name for name, *_ in differing}))}")
    model.load_state_dict(state_dict)
    return model

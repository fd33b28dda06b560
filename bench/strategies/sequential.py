import torch


def sequential(build, path, device):
    """Put the model on the device and the state dict on the host, and move one tensor at a time."""
    model = build().to(device)
    state_dict = torch.load(path, map_location="cpu", weights_only=True)

    # The model's state dict shares the model's memory, outside autograd, and has its buffers too.
    destination = model.state_dict()
    if extra := sorted(name for name in destination if name.endswith("_extra_state")):
        raise ValueError(f"{', '.join(extra)}: only load_state_dict sets what is not a tensor of the model")

    def form(tensors):
        first = {}  # The first name of every storage: tied names have it in common.
        return {
            (name, t.dtype, t.shape, t.stride(), first.setdefault(t.untyped_storage(), name))
            for name, t in tensors.items()
        }

    # `copy_` broadcasts and casts, and lets the last of several tied names win.
    if differing := form(destination) ^ form(state_dict):
        raise ValueError(f"{path} does not fit the model in {', '.join(sorted({name for name, *_ in differing}))}")
    for name, tensor in destination.items():
        tensor.copy_(state_dict[name].to(device))
    return model

import torch


def sequential(build, path, device):
    """Put the model on the device and the state dict on the host, and move one tensor at a time."""
    model = build().to(device)
    state_dict = torch.load(path, map_location="cpu", weights_only=True)

    # The model's state dict shares the model's memory, outside autograd, and has its buffers too.
    destination = model.state_dict()
    if differing := destination.keys() ^ state_dict.keys():
        raise KeyError(f"missing or unexpected in {path}: {', '.join(sorted(differing))}")
    for name, tensor in destination.items():
        tensor.copy_(state_dict[name].to(device))
    return model

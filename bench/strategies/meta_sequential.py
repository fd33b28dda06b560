import torch


def meta_sequential(build, path, device):
    """Allocate a meta skeleton on the device uninitialised, and copy a state dict that is on the device too."""
    with torch.device("meta"):
        skeleton = build()
    model = skeleton.to_empty(device=device)
    state_dict = torch.load(path, map_location=device, weights_only=True)

    # The model's state dict shares the model's memory, outside autograd, and has its buffers too.
    destination = model.state_dict()
    if differing := destination.keys() ^ state_dict.keys():
        raise KeyError(f"missing or unexpected in {path}: {', '.join(sorted(differing))}")
    for name, tensor in destination.items():
        tensor.copy_(state_dict[name])
    return model

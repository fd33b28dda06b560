import torch


def baseline(build, path, device):
    """Build the model on the host, move it to the device, and copy a state dict that is on the device too."""
    model = build().to(device)
    state_dict = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(state_dict)
    return model

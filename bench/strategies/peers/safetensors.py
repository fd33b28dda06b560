import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model


def safetensors(build, path, device):
    """Map the file, or copy it to the device, and make its tensors those of a meta skeleton."""
    with torch.device("meta"):
        model = build()
    model.load_state_dict(load_file(path, device=str(device)), assign=True)
    return model


def safetensors_load_model(build, path, device):
    """Put the model on the device, and let the library load the file into it."""
    model = build().to(device)
    load_model(model, path, device=str(device))
    return model


def safetensors_safe_open(build, path, device):
    """Put the model on the device, and copy one tensor of the file after the other into it."""
    model = build().to(device)
    destination = model.state_dict()
    with safe_open(path, framework="pt", device=str(device)) as file:
        for name in file.keys():  # noqa: SIM118 - it is no dict
            destination[name].copy_(file.get_tensor(name))
    return model

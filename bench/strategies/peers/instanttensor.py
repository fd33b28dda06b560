import torch
from instanttensor import safe_open


def instanttensor(build, path, device):
    """Stream the file through a ring on the device, and make copies of what comes the tensors of a meta skeleton."""
    with torch.device("meta"):
        model = build()
    # It wants to be told which one.
    index = torch.cuda.current_device() if device.index is None else device.index
    # What it yields are clones that outlive the ring, by its default `copy=True`.
    with safe_open(str(path), framework="pt", device=index) as file:
        model.load_state_dict(dict(file.tensors()), assign=True)
    return model

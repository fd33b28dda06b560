import torch


def mmap_assign(build, path, device):
    """Map the checkpoint and make its tensors the parameters and buffers of a meta skeleton."""
    with torch.device("meta"):
        model = build()
    state_dict = torch.load(path, map_location=device, weights_only=True, mmap=True)
    model.load_state_dict(state_dict, assign=True)
    return model

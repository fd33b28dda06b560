import torch


def load_then_shard(build, path, device, parallelize):
    """Load everything on the host of every rank, and keep a shard of it on the device."""
    model = build()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return parallelize(model).to(device)

from pathlib import Path

import torch


def per_tensor(build, path, device):
    """Allocate a meta skeleton on the device uninitialised, and fill it from one file a tensor."""
    with torch.device("meta"):
        skeleton = build()
    model = skeleton.to_empty(device=device)

    # The model's state dict shares the model's memory, outside autograd, and has its buffers too.
    destination = model.state_dict()
    files = {file.stem: file for file in Path(path).glob("*.pt")}
    if differing := destination.keys() ^ files.keys():
        raise KeyError(f"missing or unexpected in {path}: {', '.join(sorted(differing))}")
    for name, tensor in destination.items():
        tensor.copy_(torch.load(files[name], map_location="cpu", weights_only=True))
    return model

from pathlib import Path
from urllib.parse import quote, unquote

import torch

from bench.strategies.reading.fit import is_made_of_others, require_persistent, require_plain, swap, swappable


def per_tensor(build, path, device):
    """Allocate a meta skeleton on the device uninitialised, and fill it from one file a tensor."""
    with torch.device("meta"):
        model = build()
    require_persistent(model)
    require_plain(model)
    # Tied names are one tensor, which has one file, under the first of them. One module after the other: all
    # parameters before all buffers would leave more gaps in a GPU's memory.
    named = dict((*model.named_parameters(), *model.named_buffers()))
    tensors = {name: named[name] for name in model.state_dict() if name in named}
    files = {name: Path(path, f"{quote(name, safe='')}.pt") for name in tensors}
    if differing := {file.name for file in files.values()} ^ {file.name for file in Path(path).iterdir()}:
        raise ValueError(f"{path} and the model differ in {sorted(unquote(f.removesuffix('.pt')) for f in differing)}")

    storages = set()
    with swappable(model):
        for name, tensor in tensors.items():
            if tensor.untyped_storage() in storages:
                raise ValueError(f"{name!r} shares the memory of another tensor, which has a file of its own")
            storages.add(tensor.untyped_storage())
            swap(tensor, torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device))

    for name, tensor in tensors.items():
        if files[name].is_symlink() or not files[name].is_file():
            raise ValueError(f"{files[name]} is not a file of its own")
        saved = torch.load(files[name], map_location="cpu", weights_only=True)
        # `copy_` broadcasts and casts.
        described = saved.dtype, saved.shape, saved.stride()
        if described != (tensor.dtype, tensor.shape, tensor.stride()) or is_made_of_others(saved):
            raise ValueError(f"{files[name]} does not fit {name!r}, a {tensor.dtype} of shape {list(tensor.shape)}")
        tensor.detach().copy_(saved)
        del saved  # Before the next one is read.
    return model

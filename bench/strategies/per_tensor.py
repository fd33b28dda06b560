from pathlib import Path
from urllib.parse import quote, unquote

import torch

from bench.strategies.reading.assign import allocate, kind, move_others, weights
from bench.strategies.reading.fit import is_made_of_others, require_plain
from bench.strategies.reading.skeleton import initialise, skeleton


def per_tensor(build, path, device, *, dtype=None, missing=()):
    """Allocate a meta skeleton on the device uninitialised, and fill it from one file a tensor."""
    model = skeleton(build)
    require_plain(model)
    # Tied names are one tensor, which has one file, under the first of them.
    names = [name for name in weights(model) if name not in missing]
    files = {name: Path(path, f"{quote(name, safe='')}.pt") for name in names}
    if differing := {file.name for file in files.values()} ^ {file.name for file in Path(path).iterdir()}:
        raise ValueError(f"{path} and the model differ in {sorted(unquote(f.removesuffix('.pt')) for f in differing)}")

    storages = set()
    for name, tensor in weights(model).items():
        if tensor.untyped_storage() in storages:
            raise ValueError(f"{name!r} shares the memory of another tensor, which has a file of its own")
        storages.add(tensor.untyped_storage())
    initialise(model, missing, device, dtype)
    allocate(model, device, dtype, missing)

    for name, tensor in weights(model).items():
        if name in missing:
            continue
        if files[name].is_symlink() or not files[name].is_file():
            raise ValueError(f"{files[name]} is not a file of its own")
        saved = torch.load(files[name], map_location="cpu", weights_only=True)
        # `copy_` broadcasts and casts.
        described = kind(saved, dtype), saved.shape, saved.stride()
        if described != (tensor.dtype, tensor.shape, tensor.stride()) or is_made_of_others(saved):
            raise ValueError(f"{files[name]} does not fit {name!r}, a {tensor.dtype} of shape {list(tensor.shape)}")
        tensor.detach().copy_(saved.to(tensor.dtype))
        del saved  # Before the next one is read.
    move_others(model, device)
    return model

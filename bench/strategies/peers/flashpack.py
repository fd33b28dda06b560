import torch
from flashpack import assign_from_file
from flashpack.parallel_read import parallel_read_supported


def flashpack(build, path, device):
    """Read the file to the device, or map it, and make views of it the tensors of a meta skeleton."""
    with torch.device("meta"):
        model = build()
    assign_from_file(model, str(path), device=device)
    return model


def backend(device):
    """Return the reader that it takes."""
    return "parallel reader" if parallel_read_supported(device) else "memory map"

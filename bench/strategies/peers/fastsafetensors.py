import torch
from fastsafetensors import SafeTensorsFileLoader, fastsafe_open


def fastsafetensors(build, path, device):
    """Read the whole file to the device, and make views of it the tensors of a meta skeleton."""
    with torch.device("meta"):
        model = build()
    if device.type == "cuda" and device.index is None:
        # It wants to be told which one.
        device = torch.device("cuda", torch.cuda.current_device())
    # Where there is no GPUDirect Storage it takes its other back end by itself; on the host it has to be told.
    with fastsafe_open([str(path)], nogds=device.type == "cpu", device=str(device)) as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()}, assign=True)  # noqa: SIM118
    return model


def backend(device):
    """The copier that it takes on this machine."""
    loader = SafeTensorsFileLoader(None, str(device), nogds=device.type == "cpu")
    try:
        return loader.copier_class.__name__
    finally:
        loader.close()

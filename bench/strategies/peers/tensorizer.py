import torch
from tensorizer import TensorDeserializer
from tensorizer.utils import no_init_or_tensor


def tensorizer(build, path, device):
    """Build a model without storage with the library's own context, and let it register what it reads in that."""
    with torch.device(device), no_init_or_tensor():
        model = build()
    with TensorDeserializer(path, device=device) as deserializer:
        deserializer.load_into_module(model)
    return model

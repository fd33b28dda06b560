from torch.distributed import checkpoint
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader


def dcp(build, path, device):
    """Put the model on the device, and load into its state dict, without a process group."""
    model = build().to(device)
    state_dict = model.state_dict()
    checkpoint.load(state_dict, checkpoint_id=path, no_dist=True)
    # The tensors are the model's, which are filled by now; extra state is not.
    model.load_state_dict(state_dict)
    return model


def dcp_safetensors(build, path, device):
    """Load the .safetensors files of a folder in the same way."""
    model = build().to(device)
    reader = HuggingFaceStorageReader(str(path.parent))
    state_dict = model.state_dict()
    checkpoint.load(state_dict, storage_reader=reader, no_dist=True)
    model.load_state_dict(state_dict)
    return model

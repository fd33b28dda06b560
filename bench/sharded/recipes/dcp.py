import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

from bench.strategies.reading.assign import load_extra_state
from bench.strategies.reading.shards import materialize, skeleton_to_shard


def dcp(build, path, device, parallelize, *, dtype=None):
    """Load a distributed checkpoint, a folder, into the shards of every rank."""
    return _load(build, device, parallelize, dtype, checkpoint.FileSystemReader(path))


def dcp_safetensors(build, path, device, parallelize, *, dtype=None):
    """Read the shards from the .safetensors files of a folder in the same way."""
    return _load(build, device, parallelize, dtype, HuggingFaceStorageReader(str(path.parent)))


def _load(build, device, parallelize, dtype, reader):
    model = skeleton_to_shard(build, dtype)
    parallelize(model)
    materialize(model, device)
    state_dict = with_saved_names(model, reader.read_metadata().state_dict_metadata)
    checkpoint.load(state_dict, storage_reader=reader)
    # The tensors are the model's, which are filled by now; extra state is not. FSDP2 then pads shards by copies: there
    # would be both as long as somebody holds on to the tensors.
    extra = {name: value for name, value in state_dict.items() if not isinstance(value, torch.Tensor)}
    del state_dict
    load_extra_state(model, extra)
    return model


def with_saved_names(model, saved):
    """The state dict of a model, without names of a tied tensor that are not saved if another one is."""
    own = model.state_dict(keep_vars=True)
    held = {id(value) for name, value in own.items() if name in saved}
    return {name: value for name, value in own.items() if name in saved or id(value) not in held}

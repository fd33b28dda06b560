"""What can be wrong with a checkpoint, as functions that do it to a sound one, and one table a layout of them all.

The key and the reason beside each are what `model.trust` is to say of it.
"""

from bench.faults.archives import ARCHIVE_FAULTS
from bench.faults.fault import Fault
from bench.faults.folders import FOLDER_FAULTS
from bench.faults.pickles import PICKLE_FAULTS
from bench.faults.shards import SAFETENSORS_FAULTS, SAFETENSORS_SHARD_FAULTS, TORCH_SHARD_FAULTS
from bench.faults.states import STATE_FAULTS

FAULTS: dict[str, dict[str, Fault]] = {
    "torch": ARCHIVE_FAULTS | PICKLE_FAULTS | STATE_FAULTS,
    "per_tensor": FOLDER_FAULTS,
    "safetensors": SAFETENSORS_FAULTS,
    "torch_sharded": TORCH_SHARD_FAULTS,
    "safetensors_sharded": SAFETENSORS_SHARD_FAULTS,
}

"""What can be wrong with a checkpoint, as functions that do it to a sound one, and one table a layout of them all.

The key and the reason beside each are what `model.examine.trust` is to say of it.
"""

from bench.selftest.faults.archives import ARCHIVE_FAULTS
from bench.selftest.faults.fault import Fault
from bench.selftest.faults.folders import FOLDER_FAULTS
from bench.selftest.faults.pickles import PICKLE_FAULTS
from bench.selftest.faults.shards import SAFETENSORS_FAULTS, SAFETENSORS_SHARD_FAULTS, TORCH_SHARD_FAULTS
from bench.selftest.faults.states import STATE_FAULTS

FAULTS: dict[str, dict[str, Fault]] = {
    "torch": ARCHIVE_FAULTS | PICKLE_FAULTS | STATE_FAULTS,
    "per_tensor": FOLDER_FAULTS,
    "safetensors": SAFETENSORS_FAULTS,
    "torch_sharded": TORCH_SHARD_FAULTS,
    "safetensors_sharded": SAFETENSORS_SHARD_FAULTS,
}

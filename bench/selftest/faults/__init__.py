"""Faults of checkpoints: functions that inject one into a sound checkpoint, in a table for each layout.

Beside each are the key and the reason with which `model.examine.trust` has to refuse it.
"""

from bench.selftest.faults.archives import ARCHIVE_FAULTS
from bench.selftest.faults.damaged_shards import SAFETENSORS_FAULTS, SAFETENSORS_SHARD_FAULTS, TORCH_SHARD_FAULTS
from bench.selftest.faults.fault import Fault
from bench.selftest.faults.folders import FOLDER_FAULTS
from bench.selftest.faults.pickles import PICKLE_FAULTS
from bench.selftest.faults.states import STATE_FAULTS

FAULTS: dict[str, dict[str, Fault]] = {
    "torch": ARCHIVE_FAULTS | PICKLE_FAULTS | STATE_FAULTS,
    "per_tensor": FOLDER_FAULTS,
    "safetensors": SAFETENSORS_FAULTS,
    "torch_sharded": TORCH_SHARD_FAULTS,
    "safetensors_sharded": SAFETENSORS_SHARD_FAULTS,
}

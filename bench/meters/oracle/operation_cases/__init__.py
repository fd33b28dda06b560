"""Single operations, each as a load may do it: a function that is given a device, and returns what it keeps there."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from bench.meters.oracle.operation_cases.copies import COPIES, SLICES
from bench.meters.oracle.operation_cases.file_reads import FILES
from bench.meters.oracle.operation_cases.models import MODELS, STATE_DICTS
from bench.meters.oracle.operation_cases.tensors import COMPUTED, MADE

Operation = Callable[[torch.device], Any]

# By group and name.
OPERATIONS: Mapping[str, Mapping[str, Operation]] = {
    "copies to the device": COPIES,
    "copies of parts": SLICES,
    "made on the device": MADE,
    "computed on the device": COMPUTED,
    "models": MODELS,
    "state dicts": STATE_DICTS,
    "files": FILES,
}

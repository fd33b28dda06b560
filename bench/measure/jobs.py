"""Jobs of a case: the metered load, the timed load, and the roofline."""

from collections.abc import Callable
from functools import partial

import psutil
import torch

from bench.measure.case import Case
from bench.measure.expected import bound_bytes, roofline_kind
from bench.measure.load_process import Check, load_clock, rehearse, run_load
from bench.meters import device_meter
from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.child import Job
from bench.meters.clock import LoadClock
from bench.meters.roofline import DISK, MEMORY, Roofline
from bench.strategies import Load
from model.checkpoints.checkpoint import Checkpoint
from model.gpt2 import CONFIGS
from model.verification.outside_judge import Judge, judge_of
from model.verification.verify import check_model, check_structure

# What can be taken for a moment without asking for memory that others are about to use.
MOST_OF_FREE_MEMORY = 0.9


def load_job(  # noqa: PLR0913 - options of the meter
    case: Case,
    load: Load,
    checkpoint: Checkpoint,
    rehearsal: Checkpoint,
    *,
    explained: bool = False,
    settings: AllocatorSettings | None = None,
) -> Job:
    """Return what a child has to do to measure `load`, as a case's strategy; see `device_meter` for the options."""
    meter = partial(
        device_meter, case.device, case.strategy.source, settings, planned=case.planned, explained=explained
    )
    return Job(
        meter=meter,
        rehearse=_rehearsed(case, load, rehearsal),
        load=partial(run_load, load, checkpoint),
        # Without values there are no logits. What the user's model computes with is not the load's to answer for.
        use=case.specification.architecture.outputs if case.has_values and not case.user_model else None,
        check=partial(check_of(case), checkpoint, meter().device),
        backend=case.strategy.peer.backend if case.strategy.peer else None,
        judge=outside_judge(case, checkpoint),
    )


def clock_of(case: Case, load: Load, checkpoint: Checkpoint, rehearsal: Checkpoint) -> Callable[[], LoadClock]:
    """Return what makes the clock that times `load`, in whichever process it is called."""
    rehearsed = _rehearsed(case, load, rehearsal)
    return partial(load_clock, case.device, load, checkpoint, roofline(case, checkpoint), rehearsed)


def outside_judge(case: Case, checkpoint: Checkpoint) -> Judge | None:
    """Return what judges a load from outside its process; None where there are no values, or nobody can."""
    return judge_of(checkpoint, case.kind.torch_device(case.device)) if case.has_values else None


def check_of(case: Case) -> Check:
    """Return the check of a loaded model, in the process of the load."""
    return check_model if case.has_values else check_structure


def _rehearsed(case: Case, load: Load, rehearsal: Checkpoint) -> Callable[[torch.device], None]:
    """Return what the process of a load does first."""
    # The host loads some when it first computes in another dtype than float32.
    loads_kernels = case.has_values and (not case.kind.is_host or (case.cast or case.dtype) != "float32")
    return partial(
        rehearse,
        load,
        rehearsal,
        check_of(case),
        CONFIGS[case.size] if loads_kernels and not case.user_model else None,
        case.specification.build if case.user_model else None,
    )


def roofline(case: Case, checkpoint: Checkpoint) -> Roofline:
    """Return the best that the machine can do for such a load, to be measured with this checkpoint."""
    kind, state = roofline_kind(case), case.specification.checkpoint_bytes
    takes = bound_bytes(case, "host_private_peak_bytes") or 0
    if kind == MEMORY:
        # What the limit takes is free again before the load.
        takes = max(takes, state)
    elif kind == DISK:
        # The page cache takes as much beside the load.
        takes += state
    free = int(psutil.virtual_memory().available * MOST_OF_FREE_MEMORY)
    return Roofline(kind, checkpoint.files, case.kind.torch_device(case.device), min(takes, free))

"""What a model of the user's takes while it is built: more than the model, if its factory makes more than that."""

from functools import cache, partial

import torch
from torch import nn

from bench.meters import device_meter
from bench.meters.child import Build, Job
from bench.meters.measure import measure
from bench.meters.process import LoadEnded
from model.own import Own

LIMIT_SECONDS = 300.0


@cache
def build_peak_bytes(own: Own, *, planned: bool) -> int:
    """The most private memory of the host while its factory makes it there; 0 where it cannot be made.

    In a process of its own; in a plan nothing of it is real.
    """
    job = Job(
        meter=partial(device_meter, "cpu", planned=planned),
        rehearse=partial(_skeleton, own.build),
        load=partial(_build, own.build),
        use=None,
        check=_nothing,
    )
    try:
        return measure(job, LIMIT_SECONDS).host.private_bytes or 0
    except LoadEnded:
        return 0


def _skeleton(build: Build, _: torch.device) -> None:
    with torch.device("meta"):
        build()


def _build(build: Build, _device: torch.device, _noted: object) -> nn.Module:
    return build()


def _nothing(_: nn.Module) -> None:
    pass

"""Memory to build the user's model, which can be more than the model itself."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import nn

from bench.meters import device_meter
from bench.meters.child import Build, Job, RetainedMemory
from bench.meters.measure import Measurement, measure
from bench.meters.process import LoadEnded
from bench.strategies.reading.skeleton import skeleton
from model.user.user_model import UserModel

LIMIT_SECONDS = 300.0


@dataclass(frozen=True)
class Built:
    """Host memory, in bytes: the most private memory while a model is built, and what is held when it is deleted.

    Of a meta skeleton there is no peak apart from what is held: its tensors take nothing, and a load that builds it may
    read meanwhile.
    """

    peak_bytes: int = 0
    private_bytes: int = 0
    file_bytes: int = 0


@cache
def built(own: UserModel, *, planned: bool, on_meta: bool = False) -> Built:
    """Measure building the user's model on the host, and casting it there, in a process of its own.

    `on_meta`: to build its skeleton. It is 0 where the model cannot be built so. In a plan nothing of it is real.
    """
    measured = _measured(own, "cpu", planned, _skeleton, _skeleton if on_meta else _build)
    if measured is None:
        return Built()
    peak, kept = measured.host.private_bytes or 0, measured.kept.host
    file = kept.file_bytes or 0
    return Built(0, peak, file) if on_meta else Built(peak, kept.private_bytes or 0, file)


@cache
def left_by_model(own: UserModel, device: str, *, planned: bool, builds: bool, asked: bool) -> RetainedMemory | None:
    """Measure what is still held when the model was built, moved to the device, asked and deleted, with no strategy.

    Unless the strategy `builds` the model for real, that is done once before, so that what it leaves does not count.
    None where the model cannot be built or asked so.
    """
    check = own.outputs if asked else _nothing
    measured = _measured(own, device, planned, _skeleton if builds else _build, _build_on, check)
    return measured.kept if measured else None


def _nothing(_: nn.Module) -> None:
    pass


def _measured(  # noqa: PLR0913, PLR0917 - what a job is made of
    own: UserModel,
    device: str,
    planned: bool,
    rehearse: Callable[..., nn.Module],
    load: Callable[..., nn.Module],
    check: Callable[[nn.Module], object] = _nothing,
) -> Measurement | None:
    """Measure the model with no strategy; `rehearse` and `load` are given what builds it. None: that failed."""
    meter = partial(device_meter, device, planned=planned)
    job = Job(meter, partial(rehearse, own.build), partial(load, own.build_cast), None, check)
    try:
        return measure(job, LIMIT_SECONDS)
    except LoadEnded:
        return None


def _build_on(build: Build, device: torch.device, _noted: object) -> nn.Module:
    return build().to(device)


def _skeleton(build: Build, *_: object) -> nn.Module:
    return skeleton(build)


def _build(build: Build, *_: object) -> nn.Module:
    return build()

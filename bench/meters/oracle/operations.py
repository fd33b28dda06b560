"""Single operations that loads consist of: what each takes of a device at most, and what it holds at its end."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from functools import partial

import torch

import bench.meters.warm  # noqa: F401 - once, and not in every fork
from bench.meters import device_meter
from bench.meters.oracle.agreement import Answer, CaseGroup, Figures, group
from bench.meters.oracle.argument_types import names
from bench.meters.oracle.forks import answered, attempted, in_forks
from bench.meters.oracle.measured import measured
from bench.meters.oracle.operation_cases import OPERATIONS, Operation


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--groups", type=partial(names, known=OPERATIONS), default=list(OPERATIONS))


def groups(options: Namespace) -> Iterator[CaseGroup]:
    calls = [partial(_figures_of_all, name, device) for name in options.groups for device in ("cuda", "sim")]
    answers = map(answered, in_forks(calls, options.at_once))
    for name in options.groups:
        yield group(name, "operations", zip(OPERATIONS[name], next(answers), next(answers), strict=True))


def _figures_of_all(name: str, device: str) -> list[Answer]:
    """Operations one after another: each begins with nothing held, and nothing cached."""
    return [attempted(partial(_figures_of, operation, device)) for operation in OPERATIONS[name].values()]


def _figures_of(operation: Operation, device: str) -> Figures:
    # Refusals name a line of the file in which the operation is.
    meter = device_meter(device, operation.__code__.co_filename)
    with torch.no_grad():
        return measured(meter, _begin, operation)


def _begin(device: torch.device) -> None:
    torch.empty(1, device=device)

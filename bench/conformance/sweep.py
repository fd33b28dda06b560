"""Cells of the conformance table: hypothesis' findings about one loader and one property."""

import time
from dataclasses import dataclass
from math import inf

import torch
from hypothesis import find, settings
from hypothesis.errors import NoSuchExample

from bench.conformance.judge import IGNORABLE_CHECKS, OWN_IGNORABLE_CHECKS, CellStatus, Judgement, judge
from bench.conformance.pretrained_models import PRETRAINED
from bench.conformance.properties import PROPERTIES, Property
from bench.conformance.specimens import Specimen
from bench.strategies import Strategy

# Models of a property, at least: the first that hypothesis draws is the simplest there is.
LEAST = 2

# What a smaller specimen is looked for, an example of the profile; for a loader of the user's, in all.
SMALLER_SECONDS, OWN_SMALLER_SECONDS = 0.005, 3.0

# What the shares of all properties add up to: an example of a profile is one of a strategy, whatever the property.
SHARES = sum(row.share for row in PROPERTIES.values())


@dataclass(frozen=True)
class Cell:
    """`example` is the smallest specimen that was refused, or that came back wrong, and `why` what was said of it.

    `checks` found what is wrong; `named`: whether every refusal named a tensor; `is_own`: it is a loader of the user's.
    """

    strategy: str
    property: str
    outcome: CellStatus
    examples: int
    example: str = ""
    why: str = ""
    checks: tuple[str, ...] = ()
    named: bool = True
    is_own: bool = False


class _SmallEnough(BaseException):
    """Ends the search for a smaller specimen: what is an `Exception`, hypothesis would take for a find."""


def sweep(
    strategy: Strategy,
    row: Property,
    device: torch.device,
    profile: settings | None = None,
    *,
    shrinks: bool = True,
) -> Cell:
    """Let hypothesis look for a specimen that a strategy loads wrongly; it shrinks and keeps what it finds.

    The property gets its share of the examples that a profile gives a strategy, or of `LEAST`. What a loader does wrong
    that is not the suite's is no fault to be mended here: the search for a smaller one has a time limit.
    Without `shrinks` none is looked for where the loader is the user's.
    """
    judgements: list[tuple[Specimen, Judgement]] = []
    chosen = profile or settings()
    # What comes of assigning tensors, or of views of one buffer, is one property each, and not one of every other.
    ignorable = OWN_IGNORABLE_CHECKS if strategy.is_users else IGNORABLE_CHECKS if strategy.peer else {}
    ignored = [check for check, name in ignorable.items() if name != row.name]
    enough = SMALLER_SECONDS * chosen.max_examples if strategy.peer else inf
    if strategy.is_users:
        enough = OWN_SMALLER_SECONDS if shrinks else 0.0
    found_at = inf

    def comes_back_wrong(specimen: Specimen) -> bool:
        nonlocal found_at
        if time.monotonic() >= found_at + enough:
            raise _SmallEnough
        judgement = judge(
            *(strategy.load, row.layout or strategy.layout, specimen, device),
            fits=row.fits,
            ignored=ignored,
            once=row.once,
        )
        judgements.append((specimen, judgement))
        if judgement.outcome != CellStatus.WRONG:
            return False
        found_at = min(found_at, time.monotonic())
        return True

    examples = max(1, round(max(LEAST, chosen.max_examples / SHARES) * row.share))
    chosen = settings(chosen, max_examples=examples, deadline=None)
    key = f"{strategy.name}-{row.name}-{device.type}".encode()
    try:
        only_own = strategy.peer and strategy.peer.architecture
        specimens = PRETRAINED[row.name] if only_own else row.specimens(strategy.avoided(device.type))
        found = find(specimens, comes_back_wrong, settings=chosen, database_key=key)
    except NoSuchExample:
        return _without_wrong(strategy, row.name, judgements)
    except _SmallEnough:
        wrong = (specimen for specimen, judgement in judgements if judgement.outcome == CellStatus.WRONG)
        found = min(wrong, key=lambda specimen: len(str(specimen)))
    judgement = next(judgement for specimen, judgement in reversed(judgements) if specimen == found)
    return Cell(
        *(strategy.name, row.name, CellStatus.WRONG, len(judgements), str(found), judgement.why, judgement.checks),
        is_own=strategy.is_users,
    )


def _without_wrong(strategy: Strategy, name: str, judgements: list[tuple[Specimen, Judgement]]) -> Cell:
    refusals = [
        (str(specimen), judgement) for specimen, judgement in judgements if judgement.outcome == CellStatus.REFUSED
    ]
    if not refusals:
        return Cell(strategy.name, name, CellStatus.PASSED, len(judgements), is_own=strategy.is_users)
    # One that names nothing is worth more than a small one.
    example, judgement = min(refusals, key=lambda refusal: (refusal[1].named, len(refusal[0])))
    return Cell(
        *(strategy.name, name, CellStatus.REFUSED, len(judgements), example, judgement.why),
        named=judgement.named,
        is_own=strategy.is_users,
    )

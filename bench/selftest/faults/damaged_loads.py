"""Loads of damaged checkpoints, each result of which is written at once: a load may end its process."""

from dataclasses import dataclass
from pathlib import Path

import torch

from bench.measure.load_process import run_load
from bench.strategies import STRATEGIES
from model.checkpoints.checkpoint import Checkpoint
from model.examine.trust import UntrustedCheckpoint
from model.verification.verify import check_model

RIGHT, WRONG, REFUSED = "the model is right", "the model is wrong", "refused"


@dataclass(frozen=True)
class Attempt:
    """A strategy's load of a damaged checkpoint; `sound` is the checkpoint before the damage."""

    strategy: str
    damaged: Checkpoint
    sound: Checkpoint


def run_attempts(attempts: list[Attempt], report: Path, device: torch.device) -> None:
    """Append a line to `report` for each attempt."""
    for attempt in attempts:
        line = outcome(attempt, device).replace("\n", " ")
        with report.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def outcome(attempt: Attempt, device: torch.device) -> str:
    """Return an error as one line; `REFUSED` is the project's own error."""
    try:
        model = run_load(STRATEGIES[attempt.strategy].load, attempt.damaged, device)
    except UntrustedCheckpoint:
        return REFUSED
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the recipe made of the file
        return f"{type(error).__name__}: {error}"
    try:
        check_model(attempt.sound, device, model)
    except Exception as error:  # noqa: BLE001 - not `WrongModel` alone: of some tensors the bits cannot be looked at
        return f"{WRONG}: {error}"
    return RIGHT

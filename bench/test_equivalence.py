"""Promise: what a strategy loads is what was saved, whatever the model; what it cannot load it refuses by name."""

import pytest

from bench.conformance.sweep import Cell
from bench.conformance.trial import Trial


@pytest.mark.real_device
def test_equivalence(trial: Trial, cells: list[Cell]) -> None:
    """Names, order, dtypes, shapes, strides, bits, ties, gradients, modes, optimizers, second loads, and logits."""
    cell = trial.cell()
    cells.append(cell)
    if breach := trial.breach(cell):
        pytest.fail(breach, pytrace=False)

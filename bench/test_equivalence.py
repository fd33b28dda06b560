"""Promise: what a strategy loads is what was saved, whatever the model; what it cannot load it refuses by name."""

import pytest

from bench.cases.case import Case
from bench.cases.endings import ending
from bench.conformance.apart import Apart, judge_apart
from bench.conformance.judge import Outcome
from bench.conformance.sweep import Cell
from bench.conformance.trial import Trial
from bench.meters.process import LoadFailed
from bench.report.conformance import shortened

# What is judged of a model takes as many of it, built one after the other.
MODELS_BUILT = 8
# Of what is wrong with one.
MOST_LINES = 5


@pytest.mark.real_device
@pytest.mark.own_model
def test_own_equivalence(case: Case) -> None:
    """The same of the user's own model, with its weights and its example."""
    assert case.own
    with ending(case):
        verdict = judge_apart(case.strategy, case.own, case.device, MODELS_BUILT * case.limit_seconds)
    if verdict and verdict.outcome == Outcome.REFUSED and case.states_refusal:
        pytest.skip(f"refused: {verdict.why.partition(': ')[2]}")
    if verdict and verdict.outcome != Outcome.PASSED:
        pytest.fail("\n".join(shortened(verdict.why.splitlines(), MOST_LINES)), pytrace=False)


@pytest.mark.real_device
def test_equivalence(trial: Trial, apart: Apart, cells: list[Cell]) -> None:
    """Names, order, dtypes, shapes, strides, bits, ties, gradients, modes, optimizers, second loads, and logits."""
    if trial.why_not:
        pytest.skip(trial.why_not)
    try:
        # What is not the suite's own may do anything to its process.
        asked = trial.strategy, trial.property_name, trial.device
        cell = apart.cell(*asked) if trial.strategy.peer else trial.cell()
    except LoadFailed as error:
        raise pytest.fail.Exception(f"{trial}: {error.told}", pytrace=False) from None
    cells.append(cell)
    if breach := trial.breach(cell):
        pytest.fail(breach, pytrace=False)

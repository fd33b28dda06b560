"""Weights that many processes load together equal the saved ones when gathered, and give the outputs of one device."""

import pytest
from hypothesis import HealthCheck, given, settings

from bench.plugin.failures import failures_reported
from bench.sharded.rank_checks import DrawnGPT2, RankChecks, kinds
from bench.sharded.sharded_case import ShardedCase

# Of the models that a profile draws, those of one strategy and one way to divide them.
SHARE = 1 / 20


@pytest.mark.sharded
@pytest.mark.ranks
@pytest.mark.real_device
@pytest.mark.gathered
def test_sharded_equivalence(
    case: ShardedCase, measurable: None, rank_checks: RankChecks, request: pytest.FixtureRequest
) -> None:
    """Compare names, order, dtypes, shapes, bits, ties and logits of the user's model, or of drawn models."""
    with failures_reported(case):
        if case.user_model:
            rank_checks.run_user_model(case, request.getfixturevalue("checkpoint"))
        else:
            _of_drawn_models(case, rank_checks)


def _of_drawn_models(case: ShardedCase, rank_checks: RankChecks) -> None:
    """Load models whose sizes ranks do not divide: the same in every process that measures ranks."""

    @settings(
        max_examples=max(1, int(settings().max_examples * SHARE)),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(kinds())
    def are_what_was_saved(kind: DrawnGPT2) -> None:
        rank_checks.run(case, kind)

    are_what_was_saved()

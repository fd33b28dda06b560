"""Promise: what many processes load together is, gathered, what was saved; and it computes what one device does."""

import pytest
from hypothesis import HealthCheck, given, settings

from bench.sharded.rank_checks import DrawnGPT2, RankChecks, kinds
from bench.sharded.rendezvous import RankFailed
from bench.sharded.sharded_case import ShardedCase

# Of the models that a profile draws, those of one strategy and one way to divide them.
SHARE = 1 / 20


@pytest.mark.sharded
@pytest.mark.ranks
@pytest.mark.real_device
def test_sharded_equivalence(case: ShardedCase, able: None, rank_checks: RankChecks) -> None:
    """Names, order, dtypes, shapes, bits, ties and logits of models whose sizes ranks do not divide."""

    # Drawn are the same models in every process that measures ranks.
    @settings(
        max_examples=max(1, int(settings().max_examples * SHARE)),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(kinds())
    def is_what_was_saved(kind: DrawnGPT2) -> None:
        if kind.tied and "ties" in case.strategy.refused("cpu"):
            with pytest.raises(RankFailed, match=r"out_head\.weight"):
                rank_checks.run(case, kind)
        else:
            rank_checks.run(case, kind)

    try:
        is_what_was_saved()
    except RankFailed as error:
        raise pytest.fail.Exception(error.told, pytrace=False) from None

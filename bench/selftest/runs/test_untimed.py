"""A load whose times are no figures runs under the clock all the same, and is checked."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.case import ROUNDS, Case
from bench.measure.expected import blank_record
from bench.test_load_time import test_load_time as time_load
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.gpt2 import REHEARSAL


class Pedantic:
    """Does as a `benchmark` does, and counts."""

    rounds = 0

    def pedantic(self, target: Callable[[], object], setup: Callable[[], object], rounds: int) -> None:
        for _ in range(rounds):
            setup()
            target()
            self.rounds += 1


@pytest.mark.parametrize(("memory", "rounds"), [(None, ROUNDS), ("80 GiB", 1)])
def test_a_load_to_a_stand_in_runs_once_and_leaves_no_times(tmp_path: Path, memory: str | None, rounds: int) -> None:
    case = Case("load_assign", REHEARSAL, "cpu", "float32", stand_in=memory)
    make(case.specification, tmp_path / "made", lambda _: None)
    checkpoint, record = Checkpoint(case.specification, tmp_path / "made"), blank_record(case)
    before = record.as_json()
    time_load(case, checkpoint, checkpoint, cast("BenchmarkFixture", benchmark := Pedantic()), record)
    assert benchmark.rounds == rounds
    changed = {name for name, value in record.as_json().items() if value != before[name]}
    assert ("load_seconds" in changed, "limit_fraction" in changed, bool(changed)) == (memory is None,) * 3

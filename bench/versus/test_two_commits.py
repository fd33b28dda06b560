"""From what `--versus` is given to what it says, with commits whose times are written in a file."""

from pathlib import Path

import pytest

from bench.report.versus_section import versus_lines
from bench.versus.conftest import AddWheel, Commit
from bench.versus.environments import prepare
from bench.versus.interleaved_runs import measure_in_turn
from bench.versus.side_comparison import compare_sides
from bench.versus.sides import parse

PROJECT = (
    '[project]\nname = "tiny-project"\ndependencies = ["borrowed"]\n[tool.pytest.ini_options]\npythonpath = ["."]\n'
)

TEST = """
import pytest
from constants import BYTES, SECONDS

@pytest.mark.parametrize("case", ["streamed-small-cpu"])
def test_load(case, benchmark):
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(load_seconds=SECONDS, device_requested_peak_bytes=BYTES)
"""


def test_a_commit_that_is_slower_is_said_to_be(
    repository: Path, commit: Commit, add_wheel: AddWheel, tmp_path: Path
) -> None:
    # An environment of its own, which finds what is installed here as if it were its own.
    add_wheel("borrowed", "1.0", files={"borrowed.pth": f"{Path(pytest.__file__).parents[1]}\n"})
    commit({"pyproject.toml": PROJECT, "bench/test_load.py": TEST, "constants.py": "SECONDS, BYTES = 0.5, 1000\n"})
    commit({"constants.py": "SECONDS, BYTES = 0.65, 1000\n"})
    reference, candidate = (
        prepare(side, repository, tmp_path / "cache", tmp_path, lambda _: None)
        for side in parse("main~1..main", repository)
    )
    measured = measure_in_turn(reference, candidate, ["bench"], 3, tmp_path / "runs", lambda _: None)
    result = compare_sides(measured, threshold=0.03, memory_threshold=0.0)
    assert result.regressed
    assert versus_lines(result, 120) == [
        "benchmark           figure  reference  candidate   change       95 % interval  verdict",
        "streamed-small-cpu  load s      0.500      0.650  +30.0 %  +30.0 % to +30.0 %  slower",
        "1 of 1 byte figures are equal, the host's but for 4 MiB",
        "Beside main~1, main is slower in 1 of 1 times (3 rounds, 95 % confidence in all times together)",
    ]

"""The README shows what its recorded runs say, to the letter."""

import re
from pathlib import Path

import pytest

from bench.report.marked import Marked
from bench.report.peers import PEERS
from bench.report.recorded import recorded
from bench.report.sharded_part import SHARDED

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("part", [PEERS, SHARDED], ids=lambda part: part.what)
def test_the_readme_shows_what_its_runs_say(part: Marked) -> None:
    readme = (ROOT / "README.md").read_text()
    names = part.names(readme)
    assert names
    runs = [recorded(next((ROOT / "results").glob(f"*/{name}.json"))) for name in names]
    assert part.put(readme, runs) == readme
    # Nobody has typed any of it.
    assert not re.search(r"/(home|tmp|root)/", part.part(runs))

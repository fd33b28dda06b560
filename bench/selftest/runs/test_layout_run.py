"""A run of `--layout`: one distributed checkpoint, loaded by two numbers of ranks."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.conftest import Bench, last_record
from bench.selftest.documents.markdown import documented_options
from model.layouts.dcp import SAVED

LAYOUT = "pytest bench --sharded --layout dcp --ranks 2,4"


@pytest.mark.ranks
@pytest.mark.skipif(not find_spec("numpy"), reason="wants numpy: pip install '.[sharded]'")
def test_one_checkpoint_is_saved_and_loaded_by_every_number_of_ranks(bench: Bench, folder: Path) -> None:
    done = bench(*documented_options(LAYOUT), "-k", "peak_memory and fsdp")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    records = [one["extra_info"] for one in last_record(folder)["benchmarks"]]
    assert [(one["strategy"], one["ranks"], one["layout"], one["asked_layout"]) for one in records] == [
        ("dcp", count, "dcp", "dcp") for count in (2, 4)
    ]
    assert [one["saved_with"] for one in records] == [SAVED.as_record()] * 2
    saved = {one.name for one in (folder / "checkpoints").iterdir() if one.is_dir() and "tiny" in one.name}
    assert saved == {"gpt2-tiny-float32-dcp"}
    # Every rank reads every piece that it needs a part of, and a piece is a tensor.
    for one in records:
        assert one["ranks"] <= one["read_bytes"] / one["state_bytes"] < 1.1 * one["ranks"]

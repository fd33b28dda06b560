from pathlib import Path
from typing import Any

import pytest

from bench.meters.driver.variables import MEMORY
from bench.plugin.history_scope import belongs, records_folder
from bench.plugin.test_options import chosen
from bench.record.record import Record

# What a record of two processes has beside that of one.
OF_TWO = {"ranks": 2, "parallelism": "fsdp"}


@pytest.mark.parametrize(
    ("options", "recorded", "wanted"),
    [
        ({}, {}, True),
        ({"sizes": "all"}, {"size": "xl"}, True),
        ({}, {"size": "xl"}, False),
        ({"dtype": "bfloat16"}, {}, False),
        ({"cast": "bfloat16"}, {}, False),
        ({"cast": "bfloat16"}, {"cast": "float16"}, False),
        ({"cast": "bfloat16"}, {"cast": "bfloat16"}, True),
        ({}, {"cast": "bfloat16"}, False),
        ({}, {"cast": None}, True),
        ({"cache": "cold"}, {}, False),
        ({"plan": True}, {}, False),
        ({"plan": True}, {"planned": True}, True),
        ({}, {"planned": None}, True),
        # Without a GPU memory is measured on sim, and time on the CPU.
        ({}, {"device": "cpu"}, False),
        ({}, {"device": "cpu", "bytes_per_second": 1e9}, True),
        ({"device": "cpu"}, {"device": "cpu"}, True),
        ({"device": "sim"}, {"device": "cpu", "bytes_per_second": 1e9}, False),
        # One that is no longer in the table is missed if all are to be measured.
        ({}, {"strategy": "gone"}, True),
        ({"strategies": "baseline"}, {"strategy": "gone"}, False),
        ({"strategies": "baseline"}, {"strategy": "baseline"}, True),
        # One of another project is missed only by who asked for it.
        ({}, {"strategy": "tensorizer"}, False),
        ({"strategies": "all,peers"}, {"strategy": "tensorizer"}, True),
        # A limit.
        ({}, {"strategy": None, "device": "cpu", "bytes_per_second": 1e9}, True),
        ({"strategies": "baseline"}, {"strategy": None, "device": "cpu", "bytes_per_second": 1e9}, False),
        # One in a layout that was asked for.
        ({}, {"asked_layout": "safetensors"}, False),
        ({"layout": "safetensors"}, {}, False),
        ({"layout": "safetensors"}, {"asked_layout": "safetensors"}, True),
        # One of many processes.
        ({}, OF_TWO, False),
        ({"sharded": True}, {}, False),
        ({"sharded": True}, OF_TWO, True),
        ({"sharded": True, "ranks": "3"}, OF_TWO, False),
        ({"sharded": True, "parallelism": "tensor"}, OF_TWO, False),
        ({"sharded": True}, OF_TWO | {"strategy": "gone"}, True),
        ({"sharded": True, "strategies": "streamed"}, OF_TWO | {"strategy": "gone"}, False),
    ],
)
def test_a_recorded_benchmark_is_missed_only_where_it_was_to_be_measured(
    gpus: Any, options: dict[str, Any], recorded: dict[str, Any], wanted: bool
) -> None:
    gpus(0)
    usual = {"strategy": "streamed", "size": "small", "device": "sim", "dtype": "float32", "cache": "warm"}
    assert belongs(chosen(**options), Record.read(usual | {"planned": False} | recorded)) == wanted


@pytest.mark.parametrize("seconds", [None, 0.5])
@pytest.mark.parametrize("memory", [None, "80GiB"])
def test_a_stand_in_misses_no_time_of_a_gpu(
    gpus: Any, monkeypatch: pytest.MonkeyPatch, memory: str | None, seconds: float | None
) -> None:
    gpus(1)
    monkeypatch.delenv(MEMORY, raising=False)
    if memory:
        monkeypatch.setenv(MEMORY, memory)
    named = {"strategy": "streamed", "size": "small", "dtype": "float32", "device": "cuda", "cache": "warm"}
    recorded = Record.read(named | {"bytes_per_second": seconds})
    assert belongs(chosen(), recorded) == (memory is None or seconds is None)


def test_what_is_of_the_users_is_recorded_in_the_folder_of_the_caller(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import torch\n\ndef net():\n    return torch.nn.Linear(2, 2)\n\ndef load(build, path, device): ...\n"
    )
    suite, model, loader = chosen(), chosen(model=f"{mine}:net"), chosen(loader=[f"{mine}:load"])
    root, elsewhere = tmp_path / "suite", tmp_path / "project"
    assert records_folder(root, root, suite) == records_folder(root, root / "bench", suite) == root / "results"
    assert {records_folder(root, elsewhere, one) for one in (suite, model, loader)} == {elsewhere / "weight-loading"}
    assert {records_folder(root, root, one) for one in (model, loader)} == {root / "weight-loading"}

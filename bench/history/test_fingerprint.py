import json
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.history.fingerprint import _nvidia_driver, differences, fingerprint, gpus, hardware, in_a_line
from bench.meters.driver.variables import MEMORY
from bench.record.record import FIELDS, SCHEMA, Record

MACHINE_INFO = {"node": "somebodys-machine", "system": "Linux", "cpu": {"brand_raw": "A CPU", "hz_actual": [1, 2]}}


def test_a_fingerprint_has_what_time_depends_on_and_no_names(tmp_path: Path) -> None:
    found = fingerprint(MACHINE_INFO, tmp_path)
    assert found["cpu"] == {"brand_raw": "A CPU"}
    assert found["system"] == "Linux"
    for name in ("cores", "threads", "memory_bytes", "torch"):
        assert found[name], name
    for name in ("cuda", "gpus", "driver", "allocator_settings", "huge_pages", "checkpoint_file_system"):
        assert name in found
    text = json.dumps(found)
    assert "somebodys-machine" not in text
    assert platform.node() not in text
    assert str(tmp_path) not in text


def test_a_fingerprint_is_the_same_twice(tmp_path: Path) -> None:
    again = MACHINE_INFO | {"cpu": {"brand_raw": "A CPU", "hz_actual": [3, 4]}}
    assert fingerprint(again, tmp_path) == fingerprint(MACHINE_INFO, tmp_path)


def test_a_folder_that_is_not_there_yet_has_the_file_system_of_its_parent(tmp_path: Path) -> None:
    one, other = (fingerprint({}, folder)["checkpoint_file_system"] for folder in (tmp_path, tmp_path / "new"))
    assert one == other


def test_a_fingerprint_read_back_is_equal(tmp_path: Path) -> None:
    found = fingerprint({"python_build": ("main", "May 9")}, tmp_path)
    assert differences(json.loads(json.dumps(found)), found) == []


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sat Feb 17 22:55:48 UTC 2024", "535.161.08"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build", "575.57.08"),
        ("something else", None),
    ],
)
def test_the_drivers_version_is_found_in_both_kinds_of_module(tmp_path: Path, told: str, version: str | None) -> None:
    (tmp_path / "version").write_text(told)
    assert _nvidia_driver(tmp_path / "version") == version


def test_differences_are_named() -> None:
    found = differences({"torch": "2.13", "cores": 2}, {"torch": "2.14", "cores": 2, "driver": "580"})
    assert list(map(str, found)) == [
        "driver: None -> 580",
        "torch: 2.13 -> 2.14",
    ]


def test_a_kernel_that_keeps_a_little_more_for_itself_makes_no_other_machine() -> None:
    assert differences({"memory_bytes": 25_276_502_016}, {"memory_bytes": 25_276_514_304}) == []
    assert differences({"memory_bytes": 25_276_502_016}, {"memory_bytes": 33_000_000_000}) != []
    assert differences({"memory_bytes": 25_276_502_016}, {}) != []


def test_the_memory_of_each_gpu_is_known_and_without_one_nothing_differs_from_earlier_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    now = fingerprint(MACHINE_INFO, tmp_path)
    before = {name: value for name, value in now.items() if name != "gpu_memory_bytes"}
    assert differences(before, now) == []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=2**30 + index))
    assert fingerprint(MACHINE_INFO, tmp_path)["gpu_memory_bytes"] == [2**30, 2**30 + 1]


def test_a_stand_in_is_another_machine_than_a_gpu_and_than_one_of_other_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "stand-in for a GPU")
    monkeypatch.setattr("bench.history.fingerprint._gpu_memory_bytes", lambda: [80 * 2**30])
    found = []
    for memory in ("80GiB", "24GiB"):
        monkeypatch.setenv(MEMORY, memory)
        found.append(fingerprint(MACHINE_INFO, tmp_path))
    assert [in_a_line(one).partition(", ")[2] for one in found] == [
        "stand-in for a GPU (80 GiB)",
        "stand-in for a GPU (24 GiB)",
    ]
    assert differences(*found) == [("stand_in", "80 GiB", "24 GiB")]
    assert hardware(found[0]) != hardware(found[1])
    gpu = found[0] | {"gpus": ["NVIDIA H200"], "stand_in": None}
    assert gpus(gpu) == "NVIDIA H200"
    assert ("gpus", "['NVIDIA H200']", "['stand-in for a GPU']") in differences(gpu, found[0])


def test_a_fingerprint_from_before_stand_ins_is_that_of_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(MEMORY, raising=False)
    now = fingerprint(MACHINE_INFO, tmp_path)
    before = {name: value for name, value in now.items() if name != "stand_in"}
    assert differences(before, now) == []
    assert hardware(before) == hardware(now)


def test_a_blank_record_has_every_field_and_no_figures() -> None:
    record = Record().as_json()
    assert list(record) == list(FIELDS)
    assert {name for name, value in record.items() if value is not None} == {"schema"}
    assert record["schema"] == SCHEMA == 1

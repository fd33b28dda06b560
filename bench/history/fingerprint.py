"""Fingerprint of a machine: the hardware and software that a load's time depends on, without names and paths."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from bench.meters.driver.variables import stand_in_memory

# What pytest-benchmark adds that names a machine (`node`) or varies from call to call (the clock rate in `cpu`).
_CPU_FIELDS = ("brand_raw", "arch", "count")

MEMORY_SLACK = 0.01

_HARDWARE = ("system", "machine", "cpu", "cores", "gpus", "stand_in", "checkpoint_file_system")


def fingerprint(machine_info: dict[str, Any], checkpoints: Path) -> dict[str, Any]:
    """Return `machine_info` without the machine's name, with all that this suite's figures depend on."""
    kept = {key: value for key, value in machine_info.items() if key not in ("node", "cpu")}
    cpu = {key: value for key, value in machine_info.get("cpu", {}).items() if key in _CPU_FIELDS}
    found = kept | {
        "cpu": cpu,
        "cores": psutil.cpu_count(logical=False),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "gpu_memory_bytes": _gpu_memory_bytes(),
        "stand_in": stand_in_memory(),
        "driver": _nvidia_driver(),
        "allocator_settings": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", os.environ.get("PYTORCH_ALLOC_CONF")),
        "huge_pages": _huge_pages(),
        "checkpoint_file_system": _file_system(checkpoints),
    }
    # As it will be read back: a list is no tuple, and would differ from it.
    return json.loads(json.dumps(found))


class MachineDifference(NamedTuple):
    """An entry in which two fingerprints differ, as texts: `str()` is `name: before -> now`."""

    name: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before} -> {self.now}"


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[MachineDifference]:
    """Return the entries in which two fingerprints differ, by name."""
    return [
        MachineDifference(name, str(one.get(name)), str(other.get(name)))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name) and not _same_memory(name, one.get(name), other.get(name))
    ]


def in_a_line(machine: Mapping[str, Any]) -> str:
    """Return the version of torch and the GPUs, or else the number of cores."""
    on = gpus(machine) or f"{machine.get('cores') or 'unknown'} cores"
    return f"torch {machine.get('torch')}, {on}"


def gpus(machine: Mapping[str, Any]) -> str:
    """Return the names of the GPUs, or the stand-in for them; empty without any."""
    if memory := machine.get("stand_in"):
        return f"stand-in for a GPU ({memory})"
    return ", ".join(machine.get("gpus") or ())


def hardware(machine: Mapping[str, Any]) -> str:
    """Return the part of a fingerprint that stays when software is updated, as a text to compare."""
    memory = round((machine.get("memory_bytes") or 0) / 2**30)
    return json.dumps([memory, *(machine.get(name) for name in _HARDWARE)])


def _same_memory(name: str, one: Any, other: Any) -> bool:
    """Return True if both may be of the same machine: a kernel keeps a little more or less for itself."""
    return name == "memory_bytes" and None not in (one, other) and abs(one - other) < MEMORY_SLACK * one


def _gpu_memory_bytes() -> list[int] | None:
    """Return the memory of each GPU; None without one, as runs have it that were recorded before this entry."""
    return [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())] or None


def _nvidia_driver(version: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the version of NVIDIA's kernel module, closed or open; None without it."""
    text = version.read_text(encoding="utf-8") if version.exists() else ""
    match = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text)
    return match and match[1]


def _huge_pages() -> str | None:
    """Return the setting of transparent huge pages: `always`, `madvise` or `never`."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    match = re.search(r"\[(\w+)\]", setting.read_text(encoding="utf-8")) if setting.exists() else None
    return match and match[1]


def _file_system(folder: Path) -> str | None:
    """Return the type of the file system that a folder is on: `ext4`, `tmpfs`, ..."""
    mounts = {Path(partition.mountpoint): partition.fstype for partition in psutil.disk_partitions(all=True)}
    return next((mounts[path] for path in (folder.resolve(), *folder.resolve().parents) if path in mounts), None)

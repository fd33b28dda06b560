"""Gives the tests here GPUs that are not there, what runs the suite in small, and what runs `pytest bench`."""

from typing import Any

import pytest
import torch

from bench.history.conftest import suite
from bench.selftest.runs.conftest import bench, folder

__all__ = ["bench", "folder", "suite"]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    def have(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "native")

    return have

"""Gives the tests here what runs the suite in small, and what runs `pytest bench`."""

from bench.history.conftest import suite
from bench.selftest.runs.conftest import bench, folder

__all__ = ["bench", "folder", "suite"]

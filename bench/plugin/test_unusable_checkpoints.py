"""Tests of checkpoints that change during a run, in an inner run with made-up cases."""

import re
from pathlib import Path

import pytest

from bench.plugin.unusable_checkpoints import CheckpointUnusable

CONFTEST = """
from bench.plugin.unusable_checkpoints import UnusableCheckpoints

HELD = []

def pytest_configure(config):
    config.pluginmanager.register(UnusableCheckpoints(lambda: HELD))
"""
TESTS = """
import os
from pathlib import Path

import pytest

from bench.measure.case import Case
from bench.plugin.failures import failures_reported
from bench.plugin.unusable_checkpoints import CheckpointUnusable
from bench.meters.process import LoadDied, LoadFailed
from conftest import HELD
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.file_identity import file_identities

FOLDER = Path("checkpoint")

def case(strategy):
    return Case(strategy, "tiny", "cpu", "float32")

@pytest.fixture
def checkpoint(case):
    HELD.append(Checkpoint(case.specification, FOLDER, IDENTITIES))

@pytest.mark.parametrize("case", map(case, STRATEGIES), ids=str)
def test_load(case, checkpoint):
    with failures_reported(case):
        raise ERRORS.pop(0) if ERRORS else AssertionError("nothing is wrong")

@pytest.mark.parametrize("case", map(case, STRATEGIES), ids=str)
def test_again(case, checkpoint):
    pass
"""
FAULT = "x.pt: key: has a CRC-32 that is not its own"
FAILED = f'LoadFailed("UntrustedCheckpoint: {FAULT}")'
DIED = 'LoadDied("the process of the load died: killed by SIGBUS, a mapped file that was cut or could not be read")'


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def _run(pytester: pytest.Pytester, errors: str, *strategies: str, change: str = "") -> pytest.RunResult:
    """Run tests that raise these errors one after the other, with a checkpoint that is changed after it was found."""
    folder = pytester.mkdir("checkpoint")
    (folder / "model.pt").write_text("sound")
    pytester.makeconftest(CONFTEST)
    known = f"STRATEGIES = {strategies}\nIDENTITIES = file_identities(FOLDER)\n{change}\nERRORS = [{errors}]\n"
    pytester.makepyfile(TESTS.replace("def case(", f"{known}\ndef case(", 1))
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rfs", "-W", "ignore")


def test_it_is_told_once_and_what_else_needs_it_is_skipped(pytester: pytest.Pytester) -> None:
    result = _run(pytester, FAILED, "streamed", "mmap_assign", "per_tensor")
    # The last one loads another checkpoint, and fails for a reason of its own.
    result.assert_outcomes(failed=2, skipped=3, passed=1)
    told = [line for line in result.outlines if "CRC" in line]
    # There, and in pytest's summary.
    assert told[0] == FAULT
    assert len(told) == 2
    assert re.fullmatch(rf"FAILED \S+test_load\[streamed-tiny-cpu\] - Unsound: {FAULT}", told[1])
    assert not result.errlines
    # The reference is to the test, not to what was wrong.
    skipped = [line for line in result.outlines if line.startswith("SKIPPED")]
    assert all("test_load[streamed-tiny-cpu] says" in line for line in skipped)
    assert "Traceback" not in result.stdout.str().partition("nothing is wrong")[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("os.truncate('checkpoint/model.pt', 2)", "was changed from 5 bytes to 2 while it was in use"),
        ("os.unlink('checkpoint/model.pt')", "was sound, and can no longer be found: No such file or directory"),
        ("Path('checkpoint/model.pt').rename('a'); Path('checkpoint/model.pt').touch()", "was replaced by another"),
    ],
)
def test_whatever_a_load_says_of_a_file_that_was_changed(pytester: pytest.Pytester, change: str, told: str) -> None:
    result = _run(pytester, f"{DIED}, RuntimeError('one\\ntwo')", "streamed", "mmap_assign", change=change)
    result.assert_outcomes(failed=1, skipped=3)
    assert [line for line in result.outlines if line.startswith("checkpoint/model.pt ") and told in line]
    assert len([line for line in result.outlines if told in line]) == 2
    assert "SIGBUS" not in result.stdout.str()


def test_a_load_that_fails_with_a_sound_checkpoint_says_why_itself(pytester: pytest.Pytester) -> None:
    result = _run(pytester, f"{DIED}, LoadFailed('RuntimeError: one')", "streamed", "mmap_assign")
    result.assert_outcomes(failed=2, passed=2)
    result.stdout.fnmatch_lines(["*killed by SIGBUS*", "*RuntimeError: one*"])


def test_a_fault_is_one_line_however_long_a_key_is() -> None:
    told = str(CheckpointUnusable(f"UntrustedCheckpoint: {Path('x.pt')}: a\x1b[2J\n{'b' * 900_000} is missing"))
    assert told.startswith(r"x.pt: a\x1b[2J\nbbb")
    assert told.endswith("b is missing")
    assert len(told) < 2000

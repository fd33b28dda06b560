"""Verdicts without CUDA: the same, different, refused, and what is written of them."""

import json
import os
import signal
import time
from typing import NoReturn

import pytest

from bench.meters.oracle.__main__ import main
from bench.meters.oracle.agreement import Answer, group
from bench.meters.oracle.forks import CallFailed, attempted, in_fork, in_forks
from bench.meters.simulated.simulated_device import NotSimulated

ONE, OTHER = {"allocated": 1024, "held": None}, {"allocated": 512, "held": None}
REFUSED = CallFailed("NotSimulated", "copies.py:3 uses what is not simulated")
FAILED = CallFailed("FileNotFoundError", "somewhere is not there")


def refuse() -> NoReturn:
    raise NotSimulated("it is not simulated\nnor will it be")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("real", "simulated", "counts"),
    [
        (ONE, ONE, (1, 0, 0)),
        (ONE, OTHER, (0, 1, 0)),
        (ONE, REFUSED, (0, 0, 1)),
        (ONE, FAILED, (0, 1, 0)),
        (FAILED, ONE, (0, 1, 0)),
        # It is to be seen that there is nothing to compare.
        (FAILED, FAILED, (0, 1, 0)),
        (FAILED, REFUSED, (0, 1, 0)),
    ],
)
def test_what_is_not_the_same_is_different_unless_it_is_refused(
    real: Answer, simulated: Answer, counts: tuple[int, int, int]
) -> None:
    found = group("copies", "operations", [("to", real, simulated)])
    assert (found.same, found.different, len(found.refusals)) == counts


def test_a_group_shows_the_figures_that_differ_and_why_something_is_refused() -> None:
    found = group("copies", "operations", [("to", ONE, ONE), ("half", ONE, OTHER), ("sum", ONE, REFUSED)])
    assert str(found).splitlines() == [
        "DIFFERENT copies: 1 of 3 operations the same",
        "  different half: allocated: real 1,024, simulated 512",
        "  refused sum: copies.py:3 uses what is not simulated",
    ]
    assert str(group("tiny", "loads", [("tiny", ONE, ONE)])) == "same      tiny: allocated 1,024, held none"


def test_what_is_written_has_no_texts_of_errors() -> None:
    written = json.dumps(group("copies", "operations", [("to", FAILED, ONE)]).as_json())
    assert "somewhere" not in written
    assert "FileNotFoundError" in written


def test_a_fork_tells_what_became_of_its_call() -> None:
    assert list(in_forks([lambda: 1, lambda: 2, lambda: 3], at_once=2)) == [1, 2, 3]
    assert in_fork(refuse) == attempted(refuse) == CallFailed("NotSimulated", "it is not simulated")
    assert list(in_forks([lambda: time.sleep(0.2), die, lambda: 3], at_once=2))[::2] == [None, 3]
    assert in_fork(die) == CallFailed("died", "the process of the call ended with status -9")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["steps"], "finds no CUDA device: run it where there is a GPU, or on the stand-in"),
        (["steps", "--streams", "1,x"], "argument --streams: '1,x' is no comma list of numbers"),
        (["steps", "--seeds", "0"], "argument --seeds: '0' is no number above 0"),
        (["pinned", "--at-once", "0"], "argument --at-once: '0' is no number above 0"),
        (["loads", "--sizes", "tiny,huge"], "argument --sizes: there is no huge; there are tiny, "),
        (["operations", "--groups", "all"], "argument --groups: there is no all; there are copies to the device, "),
    ],
)
def test_what_cannot_be_compared_ends_with_a_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]

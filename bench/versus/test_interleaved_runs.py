import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bench.versus.environments import Environment
from bench.versus.interleaved_runs import InterleavedRuns, RunFailed, _duration, _reason, measure_in_turn, turns
from bench.versus.run_figures import BenchmarkKey
from bench.versus.sides import Side

# A benchmark that notes which side ran, and takes as long as there were runs before it.
NOTING = """
import os
from pathlib import Path

def test_load(benchmark):
    benchmark.pedantic(lambda: None, rounds=1)
    notes = Path("..", "notes")
    notes.open("a").write(Path.cwd().name)
    benchmark.extra_info.update(load_seconds=len(notes.read_text()), summary=os.environ.get("GITHUB_STEP_SUMMARY"))
    assert "GITHUB_STEP_SUMMARY" not in os.environ
"""

FAILING = """
def test_load(benchmark):
    benchmark(lambda: None)

def test_weights(benchmark):
    benchmark(lambda: None)
    raise ValueError("out_head.weight differs " + "in bits " * 20)
"""

# Says who it is and who it started, and goes on for longer than anybody waits for it.
ENDLESS = """
import os
import subprocess
import time
from pathlib import Path

def test_load(benchmark):
    started = subprocess.Popen(["sh", "-c", "trap '' INT; exec sleep 60"])
    Path("unfinished").write_text(f"{os.getpid()} {started.pid}")
    Path("unfinished").rename("processes")
    time.sleep(60)
"""

INTERRUPTED = """
import signal
import sys
from pathlib import Path
from bench.versus.test_interleaved_runs import environment, fight

# Whatever this was started from: jobs in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
fight(folder, environment(folder, "A"), environment(folder, "B"))
"""


def environment(folder: Path, name: str, test: str | None = None) -> Environment:
    """The running Python, and a checkout that has one file."""
    checkout = folder / name
    checkout.mkdir(exist_ok=True)
    if test:
        (checkout / "test_bench.py").write_text(test)
    return Environment(Side(name), Path(sys.executable), checkout)


def fight(
    folder: Path, reference: Environment, candidate: Environment, rounds: int = 3, *options: str
) -> InterleavedRuns:
    return measure_in_turn(reference, candidate, options, rounds, folder / "runs", lambda _: None)


def test_sides_take_turns_in_going_first() -> None:
    assert "".join("AB"[side] for side in turns(5)) == "ABBAABBAAB"


def test_runs_are_interleaved_and_paired_by_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    sides, said = [environment(tmp_path, name, NOTING) for name in "AB"], list[str]()
    found = measure_in_turn(sides[0], sides[1], ["-k", "load"], 2, tmp_path / "runs", said.append)
    assert (tmp_path / "notes").read_text() == "ABBA"
    benchmark = BenchmarkKey("test_bench.py::test_load")
    assert found == InterleavedRuns(
        Side("A"),
        Side("B"),
        (
            ({benchmark: {"load_seconds": 1}}, {benchmark: {"load_seconds": 2}}),
            ({benchmark: {"load_seconds": 4}}, {benchmark: {"load_seconds": 3}}),
        ),
    )
    assert [line.partition(": took ")[0] for line in said] == [
        *("run 1 of 4, A", "run 2 of 4, B", "run 3 of 4, B", "run 4 of 4, A")
    ]
    assert said[-1].endswith(", 0 s left")
    assert {path.name for path in (tmp_path / "A").iterdir()} <= {"__pycache__", "test_bench.py"}


def test_a_side_whose_tests_fail_is_named_with_what_failed(tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as raised:
        fight(tmp_path, environment(tmp_path, "A", NOTING), environment(tmp_path, "B", FAILING))
    told = str(raised.value)
    assert told.startswith("B: its run failed with exit status 1: FAILED test_bench.py::test_weights - ValueError: out")
    assert told.endswith("in bits")
    assert (tmp_path / "notes").read_text() == "A"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("-k", "nothing"), "A: its run failed with exit status 5: 1 deselected in "),
        (("--no-such-option",), "A: its run failed with exit status 4: ERROR: "),
    ],
)
def test_a_side_that_cannot_be_run_is_named(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    with pytest.raises(RunFailed) as raised:
        fight(tmp_path, environment(tmp_path, "A", NOTING), environment(tmp_path, "B", NOTING), 3, *options)
    assert str(raised.value).startswith(told)
    assert "\n" not in str(raised.value)


def test_a_run_that_was_killed_says_so() -> None:
    assert _reason("FAILED long ago", -signal.SIGKILL) == "its run was killed by SIGKILL"
    assert _reason("\n", 3) == "its run failed with exit status 3: it says nothing"


def test_an_interrupt_ends_the_run_and_all_that_it_started(tmp_path: Path) -> None:
    environment(tmp_path, "A", ENDLESS)
    environment(tmp_path, "B", ENDLESS)
    root = Path(__file__).parents[2]
    command = (sys.executable, "-c", INTERRUPTED, str(tmp_path))
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL) as interrupted:
        processes = tmp_path / "A" / "processes"
        assert waited_for(processes.exists)
        interrupted.send_signal(signal.SIGINT)
        interrupted.wait(30)
    ended = [partial(alive, int(process)) for process in processes.read_text().split()]
    assert waited_for(lambda: not any(still() for still in ended))
    assert not (tmp_path / "B" / "processes").exists()


def waited_for(what: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (true := what()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return true


def alive(process: int) -> bool:
    """Tell whether a process lives; one that ended and was not waited for does not."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0 s"), (99.4, "99 s"), (120, "2 min"), (3600, "60 min")])
def test_durations_are_short(seconds: float, shown: str) -> None:
    assert _duration(seconds) == shown

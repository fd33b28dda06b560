"""The simulator is what PyTorch's own allocators are, to the byte, where a CUDA build of PyTorch is installed.

The commands of this room run on the stand-in for a GPU, two at a time.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.torch_version import TorchVersion

from bench.meters.driver.launcher import CannotBuild, card
from bench.meters.oracle.operation_cases import OPERATIONS
from bench.strategies import STRATEGIES

ROOT = Path(__file__).parents[3]
GIB, MIB = 2**30, 2**20
LIMIT_SECONDS = 500

DEFAULT, EXPANDABLE = "", "expandable_segments:True"
# Torch 2.10 has no such setting: https://github.com/pytorch/pytorch/pull/172056.
KNOWS_LARGE_SEGMENTS = TorchVersion(torch.__version__) >= "2.11"
MIXED = "expandable_segments:True,max_split_size_mb:20,roundup_power2_divisions:8" + (
    ",large_segment_size_mb:12" * KNOWS_LARGE_SEGMENTS
)
SETTINGS = (
    DEFAULT,
    EXPANDABLE,
    MIXED,
    "max_split_size_mb:32,max_non_split_rounding_mb:40",
    "roundup_power2_divisions:[1:2,4:1,16:8,>:4]",
    "large_segment_size_mb:48" if KNOWS_LARGE_SEGMENTS else "max_split_size_mb:100",
)

# Device memory by what runs there. An expandable segment reserves addresses for all of it: the stand-in has so many.
LARGE, FULL = 40 * GIB, 700 * MIB


@dataclass(frozen=True)
class Run:
    """A command, under each of the settings, on a device with so much memory."""

    command: str
    memory_bytes: int = LARGE
    settings: tuple[str, ...] = (DEFAULT,)
    # Python that changes the simulator first.
    fault: str = ""
    # Whether the device has values: there are operations that take more or less for what they find.
    values: bool = False


# With the number of loads under each of the settings, by strategy.
LOADS = {
    "xl": (Run("loads --sparse --sizes xl"), 1),
    "small": (Run("loads --sparse --sizes small", settings=(DEFAULT, EXPANDABLE)), 1),
    "tiny": (Run("loads --sparse --sizes tiny", settings=SETTINGS), 1),
    "bfloat16": (Run("loads --sparse --sizes tiny,small --dtype bfloat16"), 2),
    "cast": (Run("loads --sparse --sizes tiny --cast bfloat16", settings=(DEFAULT, EXPANDABLE)), 1),
    "with bytes": (Run("loads --sizes tiny"), 1),
}

# With the number of groups under each of the settings.
SEEDS, LENGTH = 22, 300
SEQUENCES = f"steps --seeds {SEEDS} --steps {LENGTH} --streams 1,3"
STEPS = {
    "no limit": (Run(SEQUENCES, settings=SETTINGS), 2),
    "limits": (Run(f"{SEQUENCES} --driver --capacity-mib 0,30,300", FULL, SETTINGS), 6),
}
LEAST_STEPS = 300_000

PINNED_SEEDS, PINNED_LENGTH = 60, 150
PINNED = Run(f"pinned --seeds {PINNED_SEEDS} --steps {PINNED_LENGTH}")

# With what is refused, by group: its memory depends on the GPU.
OPERATION_RUNS = {
    name: Run("operations", settings=(settings,), values=True)
    for name, settings in {"default": DEFAULT, "expandable": EXPANDABLE}.items()
}
REFUSED = {
    "made on the device": {"randperm"},
    "computed on the device": {"sum", "norm", "cumsum", "sort", "topk"},
}

ALLOCATOR = "from bench.meters.simulated import allocator\n"
FAULTS = {
    "a small segment of 4 MiB": Run(
        "loads --sparse --sizes tiny --strategies load_assign",
        fault=f"{ALLOCATOR}allocator.SMALL_SEGMENT_BYTES *= 2",
    ),
    "a small pool for one block less": Run("steps --seeds 15", fault=f"{ALLOCATOR}allocator.SMALL_BYTES -= 512"),
    "an expandable segment that is held to a fraction as it is mapped": Run(
        "steps --seeds 15 --capacity-mib 30",
        settings=(EXPANDABLE,),
        fault=f"""{ALLOCATOR}
asked = allocator.CachingAllocator._segment_bytes
def mapped(self, pool, size):
    return max(asked(self, pool, size), self._granule(pool) * -(-size // self._granule(pool)))
allocator.CachingAllocator._segment_bytes = mapped
""",
    ),
    "page-locked blocks of the size that was asked for": Run(
        "pinned --seeds 1",
        fault="from bench.meters.simulated import pinned\npinned._block_bytes = lambda requested: requested",
    ),
    "a copy that takes nothing in between": Run(
        "operations --groups 'copies of parts'",
        fault="""
from bench.meters.simulated.dispatch_interceptor import DispatchInterceptor
DispatchInterceptor._make_in_between = lambda *_, **__: None
""",
    ),
}

Finished = tuple[dict[str, Any], dict[str, Any]]
Finish = Callable[[Run], Finished]


@pytest.fixture(scope="module")
def finish(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finish:
    """Give what a run came to and what it wrote, for the runs of all tests that were chosen: they are done here."""
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    runs = list(dict.fromkeys(one["run"] for one in parameters if isinstance(one.get("run"), Run)))
    folder, checkpoints = tmp_path_factory.mktemp("oracle"), tmp_path_factory.mktemp("checkpoints")
    file = folder / "commands.json"

    def command(number: int, run: Run, environ: dict[str, str]) -> dict[str, Any]:
        where = ("--checkpoint-dir", str(checkpoints)) if run.command.startswith("loads") else ()
        options = ("--settings", *run.settings, "--json", str(folder / f"{number}.json"), "--at-once", "1", *where)
        return {"arguments": [*shlex.split(run.command), *options], "environ": environ, "before": run.fault}

    with ExitStack() as stack:
        try:
            kinds = dict.fromkeys((run.memory_bytes, run.values) for run in runs)
            cards = {kind: stack.enter_context(card([kind[0]], discards=not kind[1])) for kind in kinds}
        except CannotBuild as error:
            pytest.skip(str(error))
        environs = {run: cards[run.memory_bytes, run.values] | {"TORCH_CPP_LOG_LEVEL": "ERROR"} for run in runs}
        file.write_text(json.dumps([command(number, run, environs[run]) for number, run in enumerate(runs)]))
        subprocess.run(
            (sys.executable, "-W", "ignore", "-m", "bench.meters.oracle.together", str(file)),
            cwd=ROOT,
            env=environs[runs[0]],
            check=True,
            timeout=LIMIT_SECONDS,
        )
    ended = json.loads(file.read_text())

    def finished(run: Run) -> Finished:
        told = folder / f"{runs.index(run)}.json"
        return ended[runs.index(run)], json.loads(told.read_text()) if told.exists() else {}

    return finished


def assert_ended_well(done: dict[str, Any]) -> None:
    assert done["status"] == 0, done["stdout"] + done["stderr"]


def assert_same(finished: Finished, compared: int) -> None:
    """Assert that a run compared so much, and found nothing but the same."""
    done, told = finished
    assert_ended_well(done)
    assert {name: told[name] for name in ("same", "different", "refused")} == {
        "same": compared,
        "different": 0,
        "refused": 0,
    }, done["stdout"]


@pytest.mark.parametrize(("run", "loads"), LOADS.values(), ids=LOADS)
def test_the_suites_loads_take_what_is_simulated(finish: Finish, run: Run, loads: int) -> None:
    assert_same(finish(run), loads * len(STRATEGIES) * len(run.settings))


@pytest.mark.parametrize(("run", "groups"), STEPS.values(), ids=STEPS)
def test_random_steps_take_what_is_simulated(finish: Finish, run: Run, groups: int) -> None:
    assert_same(finish(run), groups * SEEDS * LENGTH * len(run.settings))


def test_they_are_enough() -> None:
    assert sum(groups for _, groups in STEPS.values()) * SEEDS * LENGTH * len(SETTINGS) >= LEAST_STEPS


@pytest.mark.parametrize("run", [PINNED], ids=["pinned"])
def test_page_locked_memory_is_what_is_simulated(finish: Finish, run: Run) -> None:
    assert_same(finish(run), PINNED_SEEDS * PINNED_LENGTH)


@pytest.mark.parametrize("run", OPERATION_RUNS.values(), ids=OPERATION_RUNS)
def test_single_operations_take_what_is_simulated_and_those_that_are_refused_are_known(
    finish: Finish, run: Run
) -> None:
    done, told = finish(run)
    assert_ended_well(done)
    refused = {group["name"]: {one["what"] for one in group["refused"]} for group in told["groups"] if group["refused"]}
    assert refused == REFUSED
    assert told["different"] == 0
    assert told["same"] == sum(map(len, OPERATIONS.values())) - sum(map(len, REFUSED.values()))


@pytest.mark.parametrize("run", FAULTS.values(), ids=FAULTS)
def test_a_fault_of_the_simulator_is_found(finish: Finish, run: Run) -> None:
    done, told = finish(run)
    assert (done["status"], done["stderr"]) == (1, "")
    assert told["different"] > 0
    assert "DIFFERENT" in done["stdout"]


@pytest.mark.parametrize("run", list(FAULTS.values())[-1:], ids=["operations"])
def test_what_is_written_has_no_paths(finish: Finish, run: Run) -> None:
    _, told = finish(run)
    assert str(ROOT) not in json.dumps(told)
    assert set(told) == {"command", "torch", "cuda", "device", "same", "different", "refused", "groups"}
    assert told["device"] == "stand-in"

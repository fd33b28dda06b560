"""Commands that check an advice, as a shell reads them."""

import shlex
from typing import Any

import pytest

from bench.plugin.option import typed
from bench.plugin.options import OPTIONS
from bench.plugin.test_options import given
from bench.report.advice.command import PROGRAM, Typed, check_of, check_of_cast, check_of_ranks, without_places
from bench.report.advice.table_rows import rank_row, row


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ({}, "pytest bench --sizes small --strategies streamed"),
        ({"--plan": [], "--device": ["sim"]}, "pytest bench --sizes small --strategies streamed"),
        ({"--device": ["cpu"]}, "pytest bench --sizes small --device cpu --strategies streamed"),
        (
            {
                "--model": ["my-llama/config.json"],
                "--plan": [],
                "--host-memory": ["32GiB"],
                "--device-memory": ["23 GiB"],
            },
            "pytest bench --model my-llama --strategies streamed --device-memory '23 GiB' --host-memory 32GiB",
        ),
        (
            {
                "--model": ["my models/x.py:net"],
                "--checkpoint": ["a b.pt"],
                "--rename": [r"bert\.(.*)=\1", "x=$HOME"],
                "--cast": ["bfloat16"],
                "--strategies": ["all"],
                "--report": ["out"],
            },
            r"pytest bench --model 'my models/x.py:net' --checkpoint 'a b.pt' --rename 'bert\.(.*)=\1' "
            "--rename 'x=$HOME' --cast bfloat16 --strategies streamed",
        ),
        (
            {"--model": ["hub:org/name@v1"], "--plan": []},
            "hf download org/name --revision v1 --local-dir name && pytest bench --model name --strategies streamed",
        ),
    ],
)
def test_one_process_loads_with_the_options_of_the_run(options: Typed, command: str) -> None:
    assert check_of(row("streamed"), options) == command


def test_a_loader_of_the_users_is_selected_by_its_name() -> None:
    options: Typed = {"--loader": ["mine.py:fast"], "--loader-bound": ["S"], "--sizes": ["small,xl"]}
    assert check_of(row("fast", loader="mine.py:fast"), options) == (
        "pytest bench --sizes small --loader mine.py:fast --loader-bound S --strategies fast"
    )


@pytest.mark.parametrize(
    ("ranks", "of_a_node", "started"),
    [
        (2, 2, "--standalone --nproc-per-node 2"),
        (8, 8, "--standalone --nproc-per-node 8"),
        (64, 8, "--nnodes 8 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint FIRST_NODE:29500"),
        # Every node of torchrun starts as many.
        (12, 8, "--nnodes 2 --nproc-per-node 6 --rdzv-backend c10d --rdzv-endpoint FIRST_NODE:29500"),
    ],
)
def test_ranks_are_started_by_torchrun(ranks: int, of_a_node: int, started: str) -> None:
    found = check_of(rank_row("streamed", ranks, "tensor", ranks_per_node=of_a_node), {"--device-memory": ["2GiB"]})
    assert found == (
        f"torchrun {started} -m pytest bench --sharded --sizes small --strategies streamed --parallelism tensor"
    )


def test_a_command_begins_as_the_run_was_started() -> None:
    installed: Typed = {PROGRAM: ["weight-loading-bench"], "--model": ["x"]}
    checkout: Typed = {PROGRAM: ["pytest", "../suite/bench"], "--model": ["x"]}
    found = [check_of(row("streamed"), options) for options in (installed, checkout, without_places(checkout))]
    assert found == [
        "weight-loading-bench --model x --strategies streamed",
        "pytest ../suite/bench --model x --strategies streamed",
        "pytest bench --model x --strategies streamed",
    ]
    ranks = rank_row("streamed", 2, "tensor", ranks_per_node=2)
    of_ranks = [check_of(ranks, options).partition(" --sharded")[0] for options in (installed, checkout)]
    assert of_ranks == [
        "torchrun --standalone --nproc-per-node 2 --no-python weight-loading-bench",
        "torchrun --standalone --nproc-per-node 2 -m pytest ../suite/bench",
    ]
    assert without_places(installed)[PROGRAM] == ("weight-loading-bench",)


def test_remedies_are_checked_by_a_load_or_a_plan() -> None:
    options: Typed = {
        "--model": ["x/config.json"],
        "--device-memory": ["2GiB"],
        "--ranks-per-node": ["4"],
        "--plan": [],
    }
    assert check_of_cast(row("streamed"), "mmap_assign", "bfloat16", options) == (
        "pytest bench --model x --cast bfloat16 --strategies mmap_assign --device-memory 2GiB"
    )
    assert check_of_ranks(row("streamed"), 16, options) == (
        "pytest bench --sharded --plan --ranks 16 --parallelism fsdp --ranks-per-node 4 --model x/config.json "
        "--device-memory 2GiB"
    )


@pytest.mark.parametrize(
    ("text", "recorded"),
    [
        ("/models/my llama/config.json", "my llama/config.json"),
        ("/models/my llama", "my llama"),
        ("/models/x.py:net", "x.py:net"),
        ("../me/x.py:net", "x.py:net"),
        ("~/x.py:net", "x.py:net"),
        ("models/llama", "models/llama"),
        ("package.module:net", "package.module:net"),
        ("hub:org/name", "hub:org/name"),
    ],
)
def test_a_record_has_names_and_no_places(text: str, recorded: str) -> None:
    found = without_places({"--model": [text], "--rename": ["/a=/b"], "--plan": []})
    assert found == {"--model": (recorded,), "--rename": ("/a=/b",), "--plan": ()}


def test_the_options_of_a_run_are_their_texts_as_given() -> None:
    options: dict[str, Any] = {"model": "x:y", "plan": True, "rename": ["a=b", "c=d"], "device_memory": "2 GiB"}
    assert typed(given(**options), OPTIONS) == {
        "--model": ("x:y",),
        "--rename": ("a=b", "c=d"),
        "--device-memory": ("2 GiB",),
        "--plan": (),
    }
    assert shlex.split(check_of(row("streamed"), typed(given(**options), OPTIONS)))[-1] == "2 GiB"

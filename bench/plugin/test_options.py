import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.measure.expected import blank_record, roofline_kind
from bench.measure.refusals import skip_reason
from bench.meters.driver.variables import MEMORY
from bench.plugin.history_options import OPTIONS as HISTORY_OPTIONS
from bench.plugin.options import OPTIONS, add_options, help_text, settings
from bench.plugin.settings import Settings
from bench.plugin.versus import OPTIONS as VERSUS_OPTIONS
from bench.record.record import Record
from bench.sharded.recipes import SHARDED
from bench.strategies import PEERS, STRATEGIES

# What a record of two processes has beside that of one.
OF_TWO = {"ranks": 2, "parallelism": "fsdp"}


def chosen(**options: Any) -> Settings:
    defaults = {name.removeprefix("--").replace("-", "_"): default for name, default, _, _ in OPTIONS}
    return settings(Namespace(**defaults | options))


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    def have(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "native")

    return have


def test_defaults(gpus: Any) -> None:
    gpus(0)
    default = chosen()
    assert default.sizes == ("small",)
    assert default.dtype == "float32"
    assert not default.planned
    assert not default.explain
    assert default.cache == "warm"
    assert [str(case) for case in default.cases(real=False)] == [f"{name}-small-sim" for name in STRATEGIES]
    assert [str(case) for case in default.cases(real=True)] == [f"{name}-small-cpu" for name in STRATEGIES]


@pytest.mark.parametrize(
    ("count", "options", "memory", "values", "title"),
    [
        (1, {}, "cuda", "cuda", "float32 to cuda, page cache warm"),
        (0, {}, "sim", "cpu", "float32 to sim, times on cpu, page cache warm"),
        (1, {"device": "sim"}, "sim", None, "float32 to sim, page cache warm"),
        (1, {"device": "cpu"}, "cpu", "cpu", "float32 to cpu, page cache warm"),
        (1, {"plan": True}, "sim", None, "float32 to sim, planned"),
        (0, {"plan": True, "device": "cpu"}, "cpu", None, "float32 to cpu, planned"),
        (1, {"cache": "cold"}, "cuda", "cuda", "float32 to cuda, page cache cold"),
        (0, {"cache": "cold"}, "sim", "cpu", "float32 to sim, times on cpu, page cache cold"),
    ],
)
def test_memory_is_measured_on_a_gpu_or_a_simulated_one_and_times_where_values_are(
    gpus: Any, count: int, options: dict[str, Any], memory: str, values: str | None, title: str
) -> None:
    gpus(count)
    settings = chosen(**options)
    assert {case.device for case in settings.cases(real=False)} == {memory}
    assert {case.device for case in settings.cases(real=True)} == ({values} if values else set())
    assert settings.title == title


def test_an_allocator_setting_that_is_not_modelled_is_refused_where_it_would_matter(
    gpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(0)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "garbage_collection_threshold:0.8")
    assert chosen(device="cpu").device == "cpu"
    for options in ({}, {"device": "sim"}, {"plan": True}):
        with pytest.raises(ValueError, match=r"allocator settings: garbage_collection_threshold:0\.8 is not modelled"):
            chosen(**options)


@pytest.mark.parametrize("variable", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_an_allocator_that_does_not_count_is_refused_on_cuda(
    gpus: Any, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    gpus(2)
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "cudaMallocAsync")
    monkeypatch.setenv(variable, "backend:cudaMallocAsync")
    for options in ({}, {"device": "cuda"}, {"device": "cuda:1"}):
        with pytest.raises(ValueError, match=f"^{variable}: backend:cudaMallocAsync does not count .*; leave the back"):
            chosen(**options)
    assert chosen(device="cpu").device == "cpu"


def test_lists_are_in_their_own_order_and_each_name_counts_once() -> None:
    assert chosen(sizes="all").sizes == ("small", "medium", "large", "xl")
    assert chosen(sizes="tiny, all,small").sizes == ("tiny", "small", "medium", "large", "xl")
    assert chosen(strategies="per_tensor,baseline,per_tensor").strategies == ("per_tensor", "baseline")
    assert chosen(strategies="peers,streamed").strategies == (*PEERS, "streamed")


def test_what_cannot_run_here_has_cases_that_say_why_and_no_limits(gpus: Any) -> None:
    gpus(0)
    alone = chosen(strategies="instanttensor", device="cpu")
    [case] = alone.cases(real=True)
    assert skip_reason(case)
    assert alone.limits() == []
    assert skip_reason(chosen(strategies="dcp", device="cpu").cases(real=True)[0]) is None
    [planned] = chosen(strategies="dcp", plan=True).cases(real=False)
    assert skip_reason(planned) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": "huge"}, "--sizes: there is no 'huge'; choose from tiny, small, medium, large, xl, gpt3, all"),
        ({"sizes": ""}, "--sizes: there is no ''; choose from"),
        ({"sizes": "rehearsal"}, "--sizes: there is no 'rehearsal'; choose from"),
        ({"strategies": "fast"}, "--strategies: there is no 'fast'; choose from baseline, sequential,"),
        ({"dtype": "int8"}, "--dtype: there is no 'int8'; choose one of float32, bfloat16, float16"),
        ({"cast": "int8"}, "--cast: there is no 'int8'; choose one of float32, bfloat16, float16$"),
        ({"cast": "float8_e4m3fn"}, "--cast: there is no 'float8_e4m3fn'; choose one of float32, bfloat16, float16$"),
        ({"cast": ""}, "--cast: there is no ''; choose one of"),
        ({"cast": "float16", "sharded": True}, "--cast: it is of loads by one process; leave it out, or --sharded"),
        ({"device": "tpu"}, "--device: there is no 'tpu'; choose from auto, cpu, cuda, cuda:N"),
        ({"device": "cuda:x"}, "--device: there is no 'cuda:x'; choose from"),
        ({"device": "cuda"}, "--device cuda: torch .* finds no CUDA device; use --device sim or cpu"),
        ({"device": "cuda", "plan": True}, "--device cuda: a plan is made for sim or cpu; leave out --plan"),
        ({"device": "cuda:0"}, "--device cuda:0: torch .* finds no CUDA device"),
        ({"cache": "hot"}, "--cache: there is no 'hot'; choose warm or cold$"),
        ({"cache": ""}, "--cache: there is no ''; choose warm or cold$"),
        (
            {"cache": "cold", "plan": True},
            "--cache cold: a plan reads no file; leave out --plan to measure cold loads$",
        ),
        ({"cache": "hot", "plan": True}, "--cache: there is no 'hot'; choose warm or cold$"),
        ({"checkpoints": "/nowhere/at/all"}, "--checkpoints: '/nowhere/at/all' is not a folder; name one that exists"),
        ({"checkpoints": __file__}, "--checkpoints: .*test_options.py' is not a folder"),
        ({"checkpoints": ""}, "--checkpoints: '' is not a folder"),
        ({"export": __file__}, "--export: .*test_options.py' is not a folder; name one, it is made"),
        ({"export": ""}, "--export: '' is not a folder"),
        ({"parallelism": "zero"}, "--parallelism: there is no 'zero'; choose from fsdp, tensor, all$"),
        # Recipes of many processes are others, even where they have the same name.
        ({"strategies": "load_then_shard"}, "--strategies: there is no 'load_then_shard'; choose from baseline,"),
        ({"sharded": True, "strategies": "baseline"}, "there is no 'baseline'; choose from load_then_shard,"),
        ({"sharded": True, "strategies": "peers"}, "there is no 'peers'; choose from load_then_shard, .*, all$"),
    ],
)
def test_an_unusable_option_is_one_line(gpus: Any, options: dict[str, Any], message: str) -> None:
    gpus(0)
    with pytest.raises(ValueError, match=message) as caught:
        chosen(**options)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there_is_told_from_those_that_are(gpus: Any) -> None:
    gpus(2)
    assert chosen(device="cuda:1").device == "cuda:1"
    assert chosen(device="cuda:01").device == "cuda:1"
    with pytest.raises(ValueError, match="--device cuda:2: there are 2 CUDA devices, the last is cuda:1"):
        chosen(device="cuda:2")


def test_checkpoints_are_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert chosen().checkpoints == tmp_path / "weight-loading"
    assert list(tmp_path.iterdir()) == []
    assert chosen(checkpoints=str(tmp_path)).checkpoints == tmp_path


@pytest.mark.parametrize("cache", ["warm", "cold"])
def test_every_case_knows_the_state_of_the_page_cache(gpus: Any, cache: str) -> None:
    gpus(0)
    run = chosen(cache=cache)
    assert run.cache == cache
    assert {case.cache for real in (False, True) for case in run.cases(real=real)} == {cache}
    assert {case.cache for case in run.limits()} == {cache}


def test_a_plan_is_made_whatever_warm_means(gpus: Any) -> None:
    gpus(0)
    assert chosen(cache="warm", plan=True).planned


def test_where_no_file_can_be_evicted_loads_are_warm(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(0)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert chosen().cache == "warm"
    with pytest.raises(ValueError, match="--cache cold: this system does not let a file be evicted"):
        chosen(cache="cold")


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({"sizes": "tiny,small"}, {"memory-tiny-cpu", "mapping-tiny-cpu", "memory-small-cpu", "mapping-small-cpu"}),
        ({"strategies": "mmap_assign"}, {"mapping-small-cpu"}),
        ({"strategies": "per_tensor,streamed"}, {"memory-small-cpu"}),
        ({"device": "cuda:1"}, {"pinned-small-cuda:1"}),
        ({"device": "cuda", "cache": "cold"}, {"disk-small-cuda"}),
        ({"cache": "cold"}, {"disk-small-cpu"}),
        ({"device": "sim"}, set()),
        ({"plan": True}, set()),
    ],
)
def test_a_limit_is_measured_once_a_size(gpus: Any, options: dict[str, Any], limits: set[str]) -> None:
    gpus(2 if str(options.get("device")).startswith("cuda") else 0)
    found = [str(case) for case in chosen(**options).limits()]
    assert len(found) == len(limits)
    assert set(found) == limits


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_a_stand_in_is_named_with_its_device(gpus: Any, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    gpus(2)
    monkeypatch.setenv(MEMORY, "80GiB,80GiB")
    named = "cuda" if device == "auto" else device
    settings = chosen(device=device)
    assert settings.stand_in == "80 GiB, 80 GiB"
    assert settings.title == f"float32 to {named} (stand-in 80 GiB, 80 GiB), page cache warm"
    for real in (False, True):
        assert {blank_record(case).stand_in for case in settings.cases(real=real)} == {"80 GiB, 80 GiB"}
    assert settings.limits() == []


@pytest.mark.parametrize("options", [{"device": "cpu"}, {"device": "sim"}, {"plan": True}])
def test_what_is_no_gpu_has_no_stand_in(gpus: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    gpus(1)
    monkeypatch.setenv(MEMORY, "80GiB")
    settings = chosen(**options)
    assert settings.stand_in is None
    assert {blank_record(case).stand_in for case in settings.cases(real=False)} == {None}
    assert "stand-in" not in settings.title


def test_so_have_the_loads_of_many_processes(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2)
    monkeypatch.setenv(MEMORY, "80GiB,80GiB")
    sharded = chosen(sharded=True, strategies="streamed", parallelism="fsdp").sharded_cases(real=True)
    assert [blank_record(case).stand_in for case in sharded] == ["80 GiB, 80 GiB"]


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
    assert chosen().wants(recorded) == (memory is None or seconds is None)


def test_a_limit_is_measured_as_the_first_strategy_that_has_it_is(gpus: Any) -> None:
    gpus(0)
    limits = chosen(strategies="per_tensor,mmap_assign,baseline").limits()
    assert {roofline_kind(case): case.strategy_name for case in limits} == {
        "memory": "per_tensor",
        "mapping": "mmap_assign",
    }


def test_of_many_processes_every_number_and_way_is_a_case(gpus: Any) -> None:
    gpus(0)
    planned = chosen(sharded=True, plan=True, ranks="8,64", parallelism="tensor, all", strategies="streamed,dcp")
    assert [str(case) for case in planned.sharded_cases(real=False)] == [
        f"{strategy}-{way}-small-x{count}-sim"
        for count in (8, 64)
        for way in ("tensor", "fsdp")
        for strategy in ("streamed", "dcp")
    ]
    assert planned.sharded_cases(real=True) == []
    timed = chosen(sharded=True, parallelism="fsdp").sharded_cases(real=True)
    assert [str(case) for case in timed] == [f"{name}-fsdp-small-x2-cpu" for name in SHARDED]


def test_loads_by_one_process_and_by_many_are_not_of_one_run(gpus: Any) -> None:
    gpus(0)
    many, one = chosen(sharded=True), chosen()
    assert [*many.cases(real=False), *many.cases(real=True), *many.limits(), *many.trials()] == []
    assert [*one.sharded_cases(real=False), *one.sharded_cases(real=True)] == []


def test_limits_are_in_the_order_of_sizes_and_strategies(gpus: Any) -> None:
    gpus(0)
    found = [str(case) for case in chosen(sizes="small,tiny", strategies="baseline,mmap_assign,streamed").limits()]
    assert found == ["memory-small-cpu", "mapping-small-cpu", "memory-tiny-cpu", "mapping-tiny-cpu"]


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
    assert chosen(**options).wants(Record.read(usual | {"planned": False} | recorded)) == wanted


def test_every_option_is_in_the_help_with_its_default() -> None:
    parser = ArgumentParser(add_help=False)
    every = (*OPTIONS, *HISTORY_OPTIONS, *VERSUS_OPTIONS)
    add_options(Namespace(addoption=parser.add_argument), every)
    for option in every:
        assert "(default: " in help_text(option), option
    assert "".join(parser.format_help().split()).count("(default:") == len(every)

from typing import Any

import pytest

from bench.measure.expected import roofline_kind
from bench.measure.refusals import skip_reason
from bench.plugin.cases import cases, conformance_cases, roofline_cases, sharded_cases
from bench.plugin.run_results import title
from bench.plugin.test_options import chosen
from bench.sharded.recipes import SHARDED


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
    found = [str(case) for case in roofline_cases(chosen(**options))]
    assert len(found) == len(limits)
    assert set(found) == limits


def test_a_limit_is_measured_as_the_first_strategy_that_has_it_is(gpus: Any) -> None:
    gpus(0)
    limits = roofline_cases(chosen(strategies="per_tensor,mmap_assign,baseline"))
    assert {roofline_kind(case): case.strategy_name for case in limits} == {
        "memory": "per_tensor",
        "mapping": "mmap_assign",
    }


def test_of_many_processes_every_number_and_way_is_a_case(gpus: Any) -> None:
    gpus(0)
    planned = chosen(sharded=True, plan=True, ranks="8,64", parallelism="tensor, all", strategies="streamed,dcp")
    assert [str(case) for case in sharded_cases(planned, real=False)] == [
        f"{strategy}-{way}-small-x{count}-sim"
        for count in (8, 64)
        for way in ("tensor", "fsdp")
        for strategy in ("streamed", "dcp")
    ]
    assert sharded_cases(planned, real=True) == []
    timed = sharded_cases(chosen(sharded=True, parallelism="fsdp"), real=True)
    assert [str(case) for case in timed] == [f"{name}-fsdp-small-x2-cpu" for name in SHARDED]


def test_loads_by_one_process_and_by_many_are_not_of_one_run(gpus: Any) -> None:
    gpus(0)
    many, one = chosen(sharded=True), chosen()
    assert [*cases(many, real=False), *cases(many, real=True), *roofline_cases(many), *conformance_cases(many)] == []
    assert [*sharded_cases(one, real=False), *sharded_cases(one, real=True)] == []


def test_limits_are_in_the_order_of_sizes_and_strategies(gpus: Any) -> None:
    gpus(0)
    found = [
        str(case) for case in roofline_cases(chosen(sizes="small,tiny", strategies="baseline,mmap_assign,streamed"))
    ]
    assert found == ["memory-small-cpu", "mapping-small-cpu", "memory-tiny-cpu", "mapping-tiny-cpu"]


def test_what_cannot_run_here_has_cases_that_say_why_and_no_limits(gpus: Any) -> None:
    gpus(0)
    alone = chosen(strategies="instanttensor", device="cpu")
    [case] = cases(alone, real=True)
    assert skip_reason(case)
    assert roofline_cases(alone) == []
    assert skip_reason(cases(chosen(strategies="dcp", device="cpu"), real=True)[0]) is None
    [planned] = cases(chosen(strategies="dcp", plan=True), real=False)
    assert skip_reason(planned) is None


@pytest.mark.parametrize("cache", ["warm", "cold"])
def test_every_case_knows_the_state_of_the_page_cache(gpus: Any, cache: str) -> None:
    gpus(0)
    run = chosen(cache=cache)
    assert run.options.cache == cache
    assert {case.cache for real in (False, True) for case in cases(run, real=real)} == {cache}
    assert {case.cache for case in roofline_cases(run)} == {cache}


@pytest.mark.parametrize(
    ("count", "options", "memory", "values", "shown"),
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
    gpus: Any, count: int, options: dict[str, Any], memory: str, values: str | None, shown: str
) -> None:
    gpus(count)
    settings = chosen(**options)
    assert {case.device for case in cases(settings, real=False)} == {memory}
    assert {case.device for case in cases(settings, real=True)} == ({values} if values else set())
    assert title(settings) == shown

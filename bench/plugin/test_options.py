import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.measure.expected import blank_record
from bench.meters.driver.variables import MEMORY
from bench.plugin.cases import cases, roofline_cases, sharded_cases
from bench.plugin.option import add_options
from bench.plugin.option_combinations import EXCLUDES, NEEDS
from bench.plugin.options import HEADINGS, OPTIONS, parsed
from bench.plugin.run_results import title
from bench.plugin.settings import Settings, settings
from bench.strategies import PEERS, STRATEGIES


def given(**options: Any) -> Namespace:
    """Return what pytest has of options, with the defaults of all others."""
    return Namespace(**{one.attribute: one.default for one in OPTIONS} | options)


def chosen(**options: Any) -> Settings:
    return settings(parsed(given(**options)))


def test_defaults(gpus: Any) -> None:
    gpus(0)
    default = chosen()
    assert default.sizes == ("small",)
    assert default.dtype == "float32"
    assert not default.options.plan
    assert not default.options.explain
    assert default.options.cache == "warm"
    assert [str(case) for case in cases(default, real=False)] == [f"{name}-small-sim" for name in STRATEGIES]
    assert [str(case) for case in cases(default, real=True)] == [f"{name}-small-cpu" for name in STRATEGIES]


def test_an_allocator_setting_that_is_not_modelled_is_refused_where_it_would_matter(
    gpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(0)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "garbage_collection_threshold:0.8")
    assert chosen(device="cpu").device == "cpu"
    for options in ({}, {"device": "sim"}, {"plan": True}):
        with pytest.raises(
            ValueError, match=r"allocator settings: simulated CUDA does not model " r"garbage_collection_threshold:0\.8"
        ):
            chosen(**options)


@pytest.mark.parametrize("variable", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_an_allocator_that_does_not_count_is_refused_on_cuda(
    gpus: Any, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    gpus(2)
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "cudaMallocAsync")
    monkeypatch.setenv(variable, "backend:cudaMallocAsync")
    for options in ({}, {"device": "cuda"}, {"device": "cuda:1"}):
        with pytest.raises(
            ValueError, match=f"^{variable}: backend:cudaMallocAsync does not count .*; leave out the back"
        ):
            chosen(**options)
    assert chosen(device="cpu").device == "cpu"


def test_lists_are_in_their_own_order_and_each_name_counts_once() -> None:
    assert chosen(sizes="all").sizes == ("small", "medium", "large", "xl")
    assert chosen(sizes="tiny, all,small").sizes == ("tiny", "small", "medium", "large", "xl")
    assert chosen(strategies="per_tensor,baseline,per_tensor").strategies == ("per_tensor", "baseline")
    assert chosen(strategies="peers,streamed").strategies == (*PEERS, "streamed")


def test_a_gpu_has_one_name(gpus: Any) -> None:
    gpus(2)
    assert chosen(device="cuda:01").device == "cuda:1"


def test_checkpoints_are_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert chosen().checkpoints == tmp_path / "weight-loading"
    assert list(tmp_path.iterdir()) == []
    for given in (tmp_path, tmp_path / "to be" / "made"):
        assert chosen(checkpoint_dir=str(given)).checkpoints == given


def test_a_plan_is_made_whatever_warm_means(gpus: Any) -> None:
    gpus(0)
    assert chosen(cache="warm", plan=True).options.plan


def test_where_no_file_can_be_evicted_loads_are_warm(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(0)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert chosen().options.cache == "warm"
    with pytest.raises(ValueError, match="--cache cold: this system cannot evict a file"):
        chosen(cache="cold")


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_a_stand_in_is_named_with_its_device(gpus: Any, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    gpus(2)
    monkeypatch.setenv(MEMORY, "80GiB,80GiB")
    named = "cuda" if device == "auto" else device
    settings = chosen(device=device)
    assert settings.stand_in == "80 GiB, 80 GiB"
    assert title(settings) == f"float32 to {named} (stand-in 80 GiB, 80 GiB), page cache warm"
    for real in (False, True):
        assert {blank_record(case).stand_in for case in cases(settings, real=real)} == {"80 GiB, 80 GiB"}
    assert roofline_cases(settings) == []


@pytest.mark.parametrize("options", [{"device": "cpu"}, {"device": "sim"}, {"plan": True}])
def test_what_is_no_gpu_has_no_stand_in(gpus: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    gpus(1)
    monkeypatch.setenv(MEMORY, "80GiB")
    settings = chosen(**options)
    assert settings.stand_in is None
    assert {blank_record(case).stand_in for case in cases(settings, real=False)} == {None}
    assert "stand-in" not in title(settings)


def test_so_have_the_loads_of_many_processes(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2)
    monkeypatch.setenv(MEMORY, "80GiB,80GiB")
    sharded = sharded_cases(chosen(sharded=True, strategies="streamed", parallelism="fsdp"), real=True)
    assert [blank_record(case).stand_in for case in sharded] == ["80 GiB, 80 GiB"]


def test_every_option_is_in_the_help_with_its_default() -> None:
    parser = ArgumentParser(add_help=False)
    groups: dict[str, Any] = {}

    def getgroup(title: str, after: str) -> Any:
        assert after in ("general", *groups), "a group stands below the one before it"
        return groups.setdefault(title, Namespace(addoption=parser.add_argument))

    add_options(Namespace(getgroup=getgroup), OPTIONS)
    assert list(groups) == [f"weight loading: {heading}" for heading in HEADINGS.values()]
    for option in OPTIONS:
        assert "(default: " in option.help_text, option
    assert "".join(parser.format_help().split()).count("(default:") == len(OPTIONS)


def test_options_that_go_together_or_not_are_options_that_there_are() -> None:
    """A rule for an option that was given another name would be dead."""
    named = {name for name, others, _ in NEEDS for name in (name, *others)}
    named |= {name for name, other, _ in EXCLUDES for name in (name, other)}
    own = {name.partition("=")[0] for name in named if not name.startswith("benchmark_")}
    assert own <= {option.attribute for option in OPTIONS}

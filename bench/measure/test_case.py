from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from bench.measure.case import Case
from bench.measure.expected import as_measured, blank_record, roofline_kind, shortage
from bench.measure.jobs import MOST_OF_FREE_MEMORY, roofline
from bench.measure.load_process import run_load
from bench.measure.refusals import remedy, states_refusal
from bench.measure.roofline_case import RooflineCase
from bench.meters.cuda import CudaMeter
from bench.meters.roofline import ROOFLINES
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.examine.trust import UntrustedCheckpoint
from model.gpt2 import REHEARSAL
from model.user.fitting import Conversion
from model.user.from_options import user_model
from model.user.reference import Reference
from model.user.source import Source
from model.user.user_model import UserModel


@pytest.mark.parametrize(
    ("strategy", "host", "message"),
    [
        ("baseline", 13_506_832_384, None),
        ("baseline", 13_506_832_383, "needs 13.5 GB of host memory, and 13.5 GB are free"),
        ("per_tensor", 7_075_060_992, None),
        ("per_tensor", 7_000_000_000, "needs 7.1 GB of host memory, and 7.0 GB are free"),
        ("mmap_assign", 0, None),
    ],
)
def test_what_memory_cannot_hold_is_told_beforehand(
    monkeypatch: pytest.MonkeyPatch, strategy: str, host: int, message: str | None
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=host))
    assert shortage(Case(strategy, "xl", "cpu", "float32")) == message


def test_so_is_what_the_device_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaMeter, "free_bytes", lambda _: 1_404_960_767)
    case = Case("baseline", "small", "cuda", "float32")
    assert shortage(case) == "needs 1.4 GB of device memory, and 1.4 GB are free"
    assert shortage(Case("sequential", "small", "cuda", "float32")) is None


def test_a_record_starts_with_what_is_known() -> None:
    record = blank_record(Case("sequential", "large", "cuda:0", "float32"))
    assert (record.strategy, record.size, record.device) == ("sequential", "large", "cuda:0")
    assert record.device_bound_ratio == pytest.approx(1.0734, abs=1e-4)
    assert record.host_bound_ratio == 1.0
    assert record.ownership == "owned"
    assert record.device_peak_ratio is None


def test_a_stand_in_is_loaded_to_once_and_has_no_times() -> None:
    times = {"load_seconds": 0.5, "bytes_per_second": 1e9}
    gpu = Case("streamed", "small", "cuda", "float32")
    stand_in = replace(gpu, stand_in="80 GiB")
    assert (gpu.rounds, as_measured(gpu, times)) == (3, times)
    assert (stand_in.rounds, as_measured(stand_in, times)) == (1, {})
    assert str(stand_in) == str(gpu)


def test_a_mapped_model_is_mapped_where_the_file_is_in_reach() -> None:
    assert blank_record(Case("mmap_assign", "small", "cpu", "float32")).ownership == "mapped"
    assert blank_record(Case("mmap_assign", "small", "cuda", "float32")).ownership == "owned"


@pytest.mark.parametrize(
    ("differences", "strided", "layouts"),
    [
        ((), False, ("safetensors_sharded", "per_tensor")),
        # A copy is made in the layout that the user has chosen, unless that cannot hold it.
        (("names without 'module.'",), False, ("safetensors_sharded", "per_tensor")),
        (("strides other than the model's: 'a'",), True, ("torch", "per_tensor")),
    ],
)
def test_the_users_layout_is_measured_if_the_strategy_loads_it(
    differences: tuple[str, ...], strided: bool, layouts: tuple[str, str]
) -> None:
    source = Source(
        Path("model.safetensors.index.json"), "safetensors_sharded", (), Conversion((), differences, False, strided)
    )
    mine = UserModel(Reference("torch.nn:ReLU"), None, source)
    cases = [Case(strategy, "mine", "cpu", "float32", user_model=mine) for strategy in ("streamed", "per_tensor")]
    assert tuple(case.layout for case in cases) == layouts
    assert (cases[0].specification.in_place is None) == bool(differences)


@pytest.mark.parametrize(
    ("strategy", "device", "cache", "limit"),
    [
        ("baseline", "cpu", "warm", "memory"),
        ("streamed", "cpu", "warm", "memory"),
        ("mmap_assign", "cpu", "warm", "mapping"),
        ("baseline", "cuda", "warm", "pinned"),
        ("mmap_assign", "cuda:1", "warm", "pinned"),
        ("baseline", "cpu", "cold", "disk"),
        ("mmap_assign", "cpu", "cold", "disk"),
        ("mmap_assign", "cuda", "cold", "disk"),
    ],
)
def test_what_the_machine_can_do_at_best_depends_on_where_weights_end_and_come_from(
    strategy: str, device: str, cache: str, limit: str
) -> None:
    case = Case(strategy, "small", device, "float32", cache=cache)
    assert limit in ROOFLINES
    assert roofline_kind(case) == limit
    assert (blank_record(case).limit, blank_record(case).cache) == (limit, cache)
    assert roofline(case, Checkpoint(case.specification, Path("/nowhere"))).kind == limit


S, L = blank_record(Case("baseline", "small", "cpu", "float32")).state_bytes, 154_389_504


@pytest.mark.parametrize(
    ("strategy", "device", "cache", "takes"),
    [
        ("baseline", "cpu", "warm", 2 * S),
        ("per_tensor", "cpu", "warm", S + L),
        ("streamed", "cpu", "warm", S),
        ("mmap_assign", "cpu", "warm", 0),
        ("per_tensor", "cuda", "warm", L),
        ("mmap_assign", "cuda", "warm", 0),
        ("baseline", "cpu", "cold", 3 * S),
        ("streamed", "cpu", "cold", 2 * S),
        ("mmap_assign", "cpu", "cold", S),
    ],
)
def test_memory_is_settled_for_a_load_and_its_limit_or_the_page_cache(
    monkeypatch: pytest.MonkeyPatch, strategy: str, device: str, cache: str, takes: int
) -> None:
    case = Case(strategy, "small", device, "float32", cache=cache)
    checkpoint = Checkpoint(case.specification, Path("/nowhere"))
    for free, most in ((10 * S, takes), (S, min(takes, int(S * MOST_OF_FREE_MEMORY))), (0, 0)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
        assert roofline(case, checkpoint).host_bytes == most


def test_a_limit_is_measured_with_the_files_of_the_checkpoint(tmp_path: Path) -> None:
    case = Case("per_tensor", REHEARSAL, "cpu", "float32")
    make(case.specification, tmp_path / "made", lambda _: None)
    checkpoint = Checkpoint(case.specification, tmp_path / "made")
    limit = roofline(case, checkpoint)
    assert limit.device == torch.device("cpu")
    assert limit.files == checkpoint.files
    assert sum(file.stat().st_size for file in limit.files) >= case.specification.footprint.state_bytes


def test_a_limit_is_no_strategys() -> None:
    case = RooflineCase("mmap_assign", "small", "cpu", "bfloat16", cache="cold")
    assert (str(case), case.row) == ("disk-small-cpu", "limit: disk")
    record = blank_record(case)
    assert record.measured() == {
        "schema": 1,
        "size": "small",
        "layout": "torch",
        "dtype": "bfloat16",
        "device": "cpu",
        "cache": "cold",
        "limit": "disk",
        "state_bytes": 376_406_016,
        "largest_tensor_bytes": L // 2,
        "checkpoint_bytes": 376_406_016,
    }
    assert str(RooflineCase("baseline", "small", "cpu", "float32")) == "memory-small-cpu"


class Unusual(BaseException):
    """An exception that is not to be explained, like `NotSimulated`."""


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("error", [ValueError("mine"), MemoryError(), torch.OutOfMemoryError("full"), Unusual()])
def test_the_checkpoint_is_blamed_where_it_is_at_fault(tmp_path: Path, error: BaseException, broken: bool) -> None:
    """A lack of memory, or what a simulation cannot do, says nothing of a checkpoint."""
    specification = Case("baseline", REHEARSAL, "cpu", "float32").specification
    make(specification, tmp_path / "made", lambda _: None)
    checkpoint = Checkpoint(specification, tmp_path / "made")
    if broken:
        checkpoint.path.write_bytes(b"")

    def load(*_: object) -> nn.Module:
        raise error

    blamed = broken and isinstance(error, ValueError)
    with pytest.raises(UntrustedCheckpoint if blamed else type(error)) as caught:
        run_load(load, checkpoint, torch.device("cpu"))
    if blamed:
        assert str(caught.value) == f"{checkpoint.path} is empty: download or copy it again"
        assert caught.value.__cause__ is error
    else:
        assert caught.value is error


CODE = """
import torch
from torch import nn

class Views(nn.Module):
    def __init__(self):
        super().__init__()
        both = torch.ones(2, 8)
        self.one, self.other = nn.Parameter(both[0]), nn.Parameter(both[1])

class Normed(nn.Linear):
    def __init__(self):
        super().__init__(8, 8)
        self.register_buffer("norms", self.weight.norm(dim=1).detach(), persistent=False)

class Stateful(nn.Linear):
    def __init__(self):
        super().__init__(8, 8)

    def get_extra_state(self):
        return 1

    def set_extra_state(self, state):
        pass

def views():
    return Views()

def normed():
    return Normed()

def both():
    return nn.Sequential(Normed(), Views())

def stateful():
    return Stateful()
"""


@pytest.mark.parametrize(
    ("model", "strategy", "device", "advice"),
    [
        ("normed", "streamed", "sim", "use baseline or sequential, or let the model be built without values of its"),
        ("views", "baseline", "cuda", "use load_assign, mmap_assign or streamed, or give each of them memory"),
        ("views", "per_tensor", "cpu", "use baseline, sequential, load_assign, mmap_assign or streamed, or give each"),
        ("both", "streamed", "sim", "let the model be built without values of its weights"),
        ("stateful", "per_tensor", "sim", "use baseline, sequential, meta_sequential, load_assign, mmap_assign or str"),
    ],
)
def test_who_refuses_a_model_says_what_to_use_instead(
    tmp_path: Path, model: str, strategy: str, device: str, advice: str
) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    case = Case(
        strategy, model, device, "float32", user_model=user_model(f"{tmp_path / 'mine.py'}:{model}", None, None, None)
    )
    assert states_refusal(case)
    assert remedy(case).startswith(advice)

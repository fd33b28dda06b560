"""The table of device kinds: other rooms ask it, and know no names."""

import pytest
import torch

from bench.measure.case import Case
from bench.measure.expected import ownership, roofline_kind, shortage
from bench.meters import KINDS, device_meter, device_named, kind_of, recorded_kind
from bench.meters.device import DeviceKind, DeviceMeter
from bench.meters.roofline import ROOFLINES
from bench.plugin.cases import cases, roofline_cases
from bench.plugin.options import OPTIONS
from bench.plugin.test_options import chosen
from bench.strategies import STRATEGIES


@pytest.fixture
def host_copy(monkeypatch: pytest.MonkeyPatch) -> DeviceKind:
    """A kind of device that only its row knows."""
    kind = DeviceKind("hostcopy", lambda device, _: DeviceMeter(device), is_host=True, note="a copy of the host")
    monkeypatch.setitem(KINDS, kind.name, kind)
    return kind


def test_a_row_is_all_that_a_new_kind_needs(host_copy: DeviceKind) -> None:
    settings = chosen(device="hostcopy")
    assert {case.device for real in (False, True) for case in cases(settings, real=real)} == {"hostcopy"}
    assert {str(case) for case in roofline_cases(settings)} == {"memory-small-hostcopy", "mapping-small-hostcopy"}
    assert type(device_meter("hostcopy")) is DeviceMeter
    for name in STRATEGIES:
        new, host = (Case(name, "tiny", device, "float32") for device in ("hostcopy", "cpu"))
        assert [ask(new) for ask in (ownership, roofline_kind, shortage)] == [
            ask(host) for ask in (ownership, roofline_kind, shortage)
        ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": True}, "^--device hostcopy: a plan runs on sim or cpu; leave out --device or --plan$"),
        ({"device_memory": "1GiB"}, "^--device-memory: --device hostcopy loads into host memory"),
    ],
)
def test_what_a_kind_cannot_is_refused(host_copy: DeviceKind, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(device="hostcopy", **options)


def test_a_name_without_a_row_is_refused_with_those_that_have_one(host_copy: DeviceKind) -> None:
    for name in ("tpu", "cpu:0", "cuda:", "sim:1", "hostcopy:1"):
        with pytest.raises(
            ValueError, match=f"'{name}' is unknown; choose from auto, cpu, cuda, cuda:N, sim, hostcopy$"
        ):
            device_named(name)


@pytest.mark.parametrize(
    ("name", "device"),
    [("cpu", "cpu"), ("sim", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cuda:12", "cuda:12")],
)
def test_a_strategy_is_given_a_device_of_torch(name: str, device: str) -> None:
    assert kind_of(name).torch_device(name) == torch.device(device)


def test_records_may_name_devices_that_have_no_row_here() -> None:
    assert recorded_kind(None) is kind_of("cpu")
    assert recorded_kind("cuda:1") is kind_of("cuda")
    other = recorded_kind("xpu:0")
    assert (other.name, other.is_host, other.has_values, other.is_gpu) == ("xpu", False, True, False)


def test_every_row_is_in_the_help_and_has_a_roofline_that_can_be_measured() -> None:
    [text] = [option.help_text for option in OPTIONS if option.name == "--device"]
    assert all(kind.help in text for kind in KINDS.values())
    assert {kind.roofline for kind in KINDS.values()} <= {None, *ROOFLINES}

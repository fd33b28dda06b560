"""Tests of objects beside a state dict in a checkpoint: read as far as `torch.load(weights_only=True)` reads them."""

import argparse
import io
import pickle
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.selftest.faults.fault import repacked
from model.examine.limits import ReadAllowance
from model.examine.pickle_objects import MOST_KEY_PARTS
from model.examine.pickle_reader import read_pickle
from model.examine.trust import UntrustedCheckpoint, examine
from model.examine.zip_directory import MalformedFile
from model.user.fitting import TargetModel
from model.user.source import recognised

STATE = nn.Linear(3, 2).state_dict()


class Rebuilt:
    """An object that is pickled as a call of any function, with any arguments."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def noted(tensor: Any) -> Any:
    tensor.note = {"seen": torch.ones(2)}
    return tensor


def sparse(kind: str) -> Tensor:
    with warnings.catch_warnings(action="ignore"):  # Torch calls some of them a beta.
        convert: Callable[..., Tensor] = getattr(torch.eye(4), f"to_sparse{kind}")
        return convert(*([(2, 2)] if kind.startswith("_bs") else []))


def quantised(scheme: str) -> Tensor:
    if scheme == "tensor":
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 2, torch.qint8)
    return torch.quantize_per_channel(torch.ones(3, 2), torch.ones(3), torch.zeros(3), 0, torch.quint8)


BESIDE: dict[str, Callable[[], Any]] = {
    "Counter": lambda: Counter("aab"),
    "Size": lambda: {"weight": torch.Size([2, 3]), "none": torch.Size([])},
    "device": lambda: [torch.device("cpu"), torch.device("cuda", 1), torch.device("meta")],
    "dtypes": lambda: [torch.bfloat16, torch.float8_e4m3fn, torch.uint16, torch.per_tensor_affine],
    "layouts": lambda: [torch.strided, torch.sparse_coo],
    "classes": lambda: [torch.Tensor, nn.Parameter, torch.FloatTensor, torch.FloatStorage, set, OrderedDict],
    "sets": lambda: {"some": {1, "a", (2, None)}, "none": set()},
    "keys": lambda: {(0, 1): 2, 0.5: 1, None: 3, True: 4, 1j: 5, torch.float32: 6, torch.Size([1]): 7},
    "numbers": lambda: [2.5, float("nan"), -(2**70), 1 - 2j],
    "bytes": lambda: [b"ab\xff", {b"key": 1}, bytearray(b"ab"), bytearray()],
    "ordered": lambda: OrderedDict(a=1),
    "sparse": lambda: [sparse(""), sparse("_csr"), sparse("_csc"), sparse("_bsr"), sparse("_bsc")],
    "quantised": lambda: [quantised("tensor"), quantised("channel")],
    "with attributes": lambda: [noted(torch.ones(2)), noted(nn.Parameter(torch.ones(2)))],
    "conjugated": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "on meta": lambda: torch.empty(2, 3, device="meta"),
    "storages": lambda: [torch.ones(2).untyped_storage()],
    "generators": lambda: [torch.get_rng_state(), torch.Generator().get_state()],
}


@pytest.mark.parametrize(
    ("name", "protocol"),
    # Of protocol 3, torch reads no bytes.
    [(name, protocol) for name in BESIDE for protocol in (2, 3) if (name, protocol) != ("bytes", 3)],
)
def test_what_torch_reads_beside_a_state_dict_is_read(tmp_path: Path, name: str, protocol: int) -> None:
    file = tmp_path / "run.ckpt"
    with warnings.catch_warnings(action="ignore"):  # Of another protocol.
        torch.save({"model": STATE, "beside": BESIDE[name]()}, file, pickle_protocol=protocol)
        torch.load(file, weights_only=True)
    source = recognised(file, STATE, "model")
    found = source.state_dict()
    assert source.keys == ("model",)
    assert all(torch.equal(found[key], value) for key, value in STATE.items())


def test_what_torch_warns_of_is_no_reason_to_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch warns of sparse and quantised tensors once in a process."""
    load = torch.load

    def warning(*args: Any, **options: Any) -> Any:
        warnings.warn("support is in beta state", UserWarning, stacklevel=2)
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", warning)
    torch.save({"model": STATE, "step": 1}, tmp_path / "run.ckpt")
    assert recognised(tmp_path / "run.ckpt", STATE, "model").state_dict().keys() == STATE.keys()


@pytest.mark.parametrize("name", ["with attributes", "parameters"])
def test_attributes_of_a_tensor_do_not_matter(tmp_path: Path, name: str) -> None:
    model = nn.Linear(3, 2)
    for parameter in model.parameters():
        noted(parameter)
    state = model.state_dict(keep_vars=name == "parameters")
    torch.save({key: noted(value) for key, value in state.items()}, tmp_path / "weights.pt")
    examine("torch", tmp_path / "weights.pt", STATE, contents=True)


def test_an_average_by_its_decay_is_found(tmp_path: Path) -> None:
    torch.save({"ema": {0.999: STATE, 0.9: STATE}, "step": 1}, tmp_path / "run.ckpt")
    assert recognised(tmp_path / "run.ckpt", STATE, "ema.0.999").keys == ("ema", 0.999)


@pytest.mark.parametrize(
    ("beside", "protocol", "said"),
    [
        (argparse.Namespace(rate=0.1), 2, "more uses argparse.Namespace"),
        (defaultdict(list), 2, "more uses collections.defaultdict"),
        (Path("runs"), 2, r"more uses pathlib\.\w+"),
        (b"", 2, r"more uses __builtin__.bytes"),
        (10**1000, 2, "more has a pickle with the instruction LONG4, which torch.save does not write by itself"),
        (1, 4, "has a pickle of protocol 4, where torch.save writes 2 by itself"),
    ],
)
def test_of_what_torch_refuses_the_remedy_is_told(tmp_path: Path, beside: Any, protocol: int, said: str) -> None:
    torch.save({"model": STATE, "more": beside}, tmp_path / "run.ckpt", pickle_protocol=protocol)
    with pytest.raises(pickle.UnpicklingError), warnings.catch_warnings(action="ignore"):
        torch.load(tmp_path / "run.ckpt", weights_only=True)
    with pytest.raises(ValueError, match=f"run.ckpt:? {said}.*: if you trust the file") as caught:
        recognised(tmp_path / "run.ckpt", STATE, "model")
    assert str(caught.value).endswith(
        "load it with torch.load(..., weights_only=False), and save the state dict by itself"
    )


def rebuilt(storage: Any, *, shape: tuple[int, ...] = (2,)) -> tuple[Any, ...]:
    return storage, 0, shape, (1,), False, OrderedDict()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda storage: Rebuilt(
                torch._tensor._rebuild_from_type_v2,
                torch._utils._rebuild_tensor_v2,
                torch.Tensor,
                rebuilt(storage),
                {"data": torch.ones(2)},
            ),
            "has a tensor with another data than that of its values",
        ),
        (
            lambda _: Rebuilt(
                torch._utils._rebuild_parameter_with_state, torch.ones(2), True, OrderedDict(), ({}, {"data": 1})
            ),
            "has a tensor with another data than that of its values",
        ),
        (
            lambda storage: Rebuilt(torch._tensor._rebuild_from_type_v2, print, torch.Tensor, rebuilt(storage), None),
            "uses __builtin__.print",
        ),
        (
            lambda storage: Rebuilt(
                torch._utils._rebuild_qtensor,
                storage,
                0,
                (3,),
                (1,),
                (torch.per_tensor_affine, 0.1, 0),
                False,
                OrderedDict(),
            ),
            "reaches beyond the end of its storage",
        ),
        (lambda _: Rebuilt(torch.Size, 3), "is broken"),
        (lambda _: Rebuilt(torch.device, 3), "is broken"),
        (lambda _: Rebuilt(set, "abc"), "is broken"),
        (lambda _: Rebuilt(OrderedDict, [("a", 1)]), "is broken"),
        (lambda _: Rebuilt(Counter, "abc"), "is broken"),
        (lambda _: Rebuilt(torch.FloatTensor, 10**12), "calls torch.FloatTensor"),
    ],
)
def test_what_torch_would_be_misled_by_is_refused(
    tmp_path: Path, make: Callable[[object], object], reason: str
) -> None:
    """In a tensor of the state dict, or beside it."""
    tensor: Any = torch.ones(2)
    torch.save({"model": STATE, "beside": make(tensor._typed_storage())}, tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match=reason):
        recognised(tmp_path / "run.ckpt", STATE, "model")


def test_a_tensor_of_another_kind_is_none_of_the_models(tmp_path: Path) -> None:
    for value, kind in ((torch.empty(2, 3, device="meta"), "a tensor on meta"), (sparse(""), "a sparse tensor")):
        torch.save(STATE | {"weight": value}, tmp_path / "weights.pt")
        with pytest.raises(UntrustedCheckpoint, match=f"weight is {kind}.*, where the model has a tensor"):
            examine("torch", tmp_path / "weights.pt", STATE)


def test_a_record_of_no_tensor_is_noticed_beside_objects(tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    torch.save({"model": STATE, "beside": [sparse(""), torch.device("cpu")]}, file)
    repacked(lambda records: records.update({"data/99": b"more"}))(file)
    with pytest.raises(ValueError, match="has a record data/99 that no tensor uses"):
        recognised(file, STATE, "model")


def test_a_key_takes_no_longer_than_it_has_parts() -> None:
    """Forty tuples, each of which has the one before it twice: a hash of the last takes a million million steps."""
    deep = b"K\x01" + b"".join(b"q%ch%c\x86" % (place, place) for place in range(40))
    for key in (deep, b"(" + b"K\x01" * (MOST_KEY_PARTS + 1) + b"t"):
        with pytest.raises(MalformedFile, match="a key that is no string but a tuple"):
            read_pickle(b"}" + key + b"K\x01s.", ReadAllowance.of(0))
    whole = b"(" + b"K\x01" * MOST_KEY_PARTS + b"t"
    assert read_pickle(b"}" + whole + b"K\x01s.", ReadAllowance.of(0)).value == {(1,) * MOST_KEY_PARTS: 1}


def test_an_argument_is_copied_only_as_often_as_there_is_room() -> None:
    """A text of a thousand letters, and a call of two bytes that copies it, again and again."""
    text = b"c_codecs\nencode\nq\0X\xe8\x03\0\0" + b"a" * 1000 + b"X\x06\0\0\0latin1\x86q\x01R"
    assert read_pickle(b"(" + text + b"h\0h\x01R" * 2 + b"t.", ReadAllowance(20_000)).value == (b"a" * 1000,) * 3
    with pytest.raises(MalformedFile, match="takes more memory to read than 4 times its size and 256 MiB"):
        read_pickle(b"(" + text + b"h\0h\x01R" * 20 + b"t.", ReadAllowance(20_000))


def test_real_checkpoints_have_room() -> None:
    """Scalars are the smallest tensors: 50,000 of them have 280 bytes each in a file, and 5 kB of `ReadAllowance`."""
    saved = io.BytesIO()
    state = {f"layers.{number}.step": torch.tensor(float(number)) for number in range(500)}
    torch.save({"model": state, "optimizer": {"state": dict(enumerate(state.values())), "losses": [0.1] * 500}}, saved)
    with zipfile.ZipFile(saved) as archive:
        content = archive.read("archive/data.pkl")
    room = ReadAllowance(10**9)
    read_pickle(content, room)
    assert (10**9 - room.left) / len(state) < 5_500


def test_small_dicts_are_not_tried_as_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of an optimizer has one for each parameter, with tensors in it."""
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    each = {number: {"exp_avg": torch.ones(2)} for number in range(50)}
    torch.save({"model": model.state_dict(), "optimizer": {"state": each}}, tmp_path / "run.ckpt")
    tried: list[int] = []
    convert = TargetModel.convert

    def counted(target: TargetModel, parts: Any, form: Any) -> Any:
        tried.append(len(parts[Path()]))
        return convert(target, parts, form)

    monkeypatch.setattr(TargetModel, "convert", counted)
    with pytest.raises(ValueError, match="add --state-key model"):
        recognised(tmp_path / "run.ckpt", model.state_dict())
    assert tried == [6]

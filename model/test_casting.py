"""Casts: shared memory stays shared, buffers outside the checkpoint keep their dtype, impossible casts are errors."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.architecture import DTYPES
from model.casting import cast, cast_dtypes, retyped
from model.checkpoints.cache import CheckpointCache
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.checkpoints.specification import Specification
from model.conftest import refusal
from model.gpt2 import REHEARSAL
from model.state_dict import first_names
from model.user.conversion_request import ConversionRequest
from model.user.from_options import user_model
from model.user.saved_dtypes import require_convertible
from model.user.source import recognised
from model.user.user_model import UserModel
from model.verification.verify import WrongModel, check_model, check_structure

CPU = torch.device("cpu")
BF16 = ConversionRequest(cast="bfloat16")
# Rounded to bfloat16 first, it is rounded to another float16.
TWICE = 1.0 + 2**-8 + 2**-10

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.norm = nn.BatchNorm1d(4)
        self.rnn = nn.LSTM(4, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("part", self.head.weight.detach()[1:3].t())
        self.register_buffer("angles", torch.tensor([1.0 + 2**-20]), persistent=False)

    def forward(self, x):
        assert x.dtype == self.head.weight.dtype
        return self.head(self.norm(self.rnn(x[None])[0][0]))

def net():
    return Net()

net.example = lambda: torch.ones(3, 4)

def net16():
    return Net().to(torch.float16)

net16.example = lambda: torch.ones(3, 4)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CheckpointCache]:
    (tmp_path / "cache").mkdir()
    with closing(CheckpointCache(tmp_path / "cache", print)) as opened:
        yield opened


def net(file: Path) -> nn.Module:
    torch.manual_seed(2)
    model = user_model(f"{file}:net").build()
    model.head.weight.data[0, 0] = TWICE  # type: ignore[union-attr, operator]
    return model


def saved(file: Path, change: Callable[[str, Tensor], Any] = lambda _, tensor: tensor) -> Path:
    """A checkpoint of `net`, each of whose storages is changed."""
    state_dict = net(file).state_dict()
    changed = {name: change(name, tensor) for name, tensor in state_dict.items()}
    changed["head.weight"] = changed["embed.weight"]
    changed["part"] = changed["embed.weight"][1:3].t()
    torch.save(changed, file.with_name("weights.pt"))
    return file.with_name("weights.pt")


def halved(_: str, tensor: Tensor) -> Tensor:
    return tensor.bfloat16() if tensor.is_floating_point() else tensor


def test_a_cast_keeps_ties_views_strides_and_what_no_checkpoint_holds(file: Path) -> None:
    model, before = net(file), {name: tensor.clone() for name, tensor in net(file).state_dict().items()}
    parameters = list(model.parameters())
    assert cast(model, torch.bfloat16) is model
    assert list(model.parameters()) == parameters
    state_dict = model.state_dict()
    for name, tensor in state_dict.items():
        assert torch.equal(tensor, before[name].bfloat16() if before[name].is_floating_point() else before[name])
        assert tensor.stride() == before[name].stride()
    assert {state_dict[name].untyped_storage().data_ptr() for name in ("embed.weight", "head.weight", "part")} == {
        state_dict["embed.weight"].untyped_storage().data_ptr()
    }
    assert (model.angles.dtype, model.angles.item()) == (torch.float32, 1 + 2**-20)  # type: ignore[operator]
    assert state_dict["norm.num_batches_tracked"].dtype == torch.int64
    assert cast(model, None) is model


def test_a_state_dict_without_values_has_the_same_form(file: Path) -> None:
    model = net(file)
    without = retyped(model.state_dict(), cast_dtypes(model.state_dict(), torch.float16))
    cast(model, torch.float16)
    for name, tensor in model.state_dict().items():
        found = without[name]
        assert (found.dtype, found.shape, found.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
        assert found.storage_offset() == tensor.storage_offset()
        assert found.untyped_storage().nbytes() == tensor.untyped_storage().nbytes()
    assert first_names(without) == first_names(model.state_dict())
    # The names of a tensor that is saved once say of all what it is.
    assert retyped(model.state_dict(), {"head.weight": torch.float64})["embed.weight"].dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "wanted", "said"),
    [
        (
            halved,
            ConversionRequest(),
            "weights.pt holds bfloat16, and the model is built in float32; add --cast float32 (or bfloat16), or build "
            "it in bfloat16",
        ),
        (
            lambda _, tensor: tensor.double() if tensor.is_floating_point() else tensor,
            ConversionRequest(),
            "weights.pt holds float64, and the model is built in float32; add --cast float32, or build it in float64",
        ),
        (
            lambda name, tensor: tensor.half() if name == "norm.bias" else tensor,
            ConversionRequest(),
            "weights.pt holds float16 in 'norm.bias', and the model is built in float32; add --cast float32 (or",
        ),
        (
            lambda name, tensor: tensor.to(torch.int8) if name == "norm.bias" else tensor,
            BF16,
            "weights.pt: norm.bias is int8, and float32 in the model; save it as float32, because --cast converts",
        ),
        (
            lambda name, tensor: tensor.float() if name == "norm.num_batches_tracked" else tensor,
            BF16,
            "weights.pt: norm.num_batches_tracked is float32, and int64 in the model; save it as int64, because",
        ),
        (
            lambda name, tensor: tensor[:2] if name == "norm.bias" else tensor,
            BF16,
            "norm.bias has the shape [2], where",
        ),
    ],
)
def test_what_is_of_another_dtype_asks_for_a_cast_in_a_line(
    file: Path, change: Callable[[str, Tensor], Any], wanted: ConversionRequest, said: str
) -> None:
    path = saved(file, change)
    line = refusal(user_model, f"{file}:net", str(path), wanted=wanted)
    assert line.startswith("--checkpoint: ")
    assert said in line


def test_what_torch_does_not_convert_is_told() -> None:
    require_convertible([torch.float8_e4m3fn, torch.float64], "bfloat16")
    with pytest.raises(
        ValueError, match=r"^--cast: torch \S+ cannot convert float4_e2m1fn_x2 to float16; leave out --cast$"
    ):
        require_convertible([torch.float4_e2m1fn_x2], "float16")


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float64])
def test_floats_of_every_width_become_others(
    file: Path, tmp_path: Path, kind: torch.dtype, cache: CheckpointCache
) -> None:
    path = saved(file, lambda _, tensor: tensor.to(kind) if tensor.is_floating_point() else tensor)
    model = user_model(f"{file}:net", str(path), wanted=BF16)
    checkpoint = of(model, "torch", cache)
    assert checkpoint.path == path.absolute()
    check_model(checkpoint, CPU, loaded(checkpoint))


def of(model: UserModel, layout: str, cache: CheckpointCache) -> Checkpoint:
    return cache.get(Specification(model.label, model.dtype, layout, model, cast=model.cast))


def loaded(checkpoint: Checkpoint) -> nn.Module:
    """The model with what is saved, cast by torch itself; in the order of a state dict the first of tied names wins."""
    specification = checkpoint.specification
    model, to = cast(specification.build(), DTYPES[specification.cast]), DTYPES[specification.cast]
    held = model.state_dict()
    for name, tensor in checkpoint.tensors():
        held[name].copy_(tensor.to(to) if tensor.is_floating_point() else tensor)
    return model


@pytest.mark.parametrize("layout", ["torch", "per_tensor"])
@pytest.mark.parametrize("factory", ["net", "net16"])
def test_a_value_is_rounded_once_and_copies_keep_the_dtype_of_the_file(
    file: Path, cache: CheckpointCache, factory: str, layout: str
) -> None:
    """Though the model is built in another: what it would be rounded to twice is another value."""
    path = saved(file, halved if factory == "net" else lambda _, tensor: tensor)
    model = user_model(
        f"{file}:{factory}", str(path), wanted=ConversionRequest(cast="float16" if factory == "net" else "bfloat16")
    )
    assert model.dtype == ("bfloat16" if factory == "net" else "float32")
    checkpoint = of(model, layout, cache)
    before = torch.load(path)
    for name, tensor in checkpoint.tensors():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == before[name].dtype
    right = loaded(checkpoint)
    check_model(checkpoint, CPU, right)
    check_structure(checkpoint, CPU, right)


def test_a_cast_that_was_not_made_or_made_twice_is_named(file: Path, cache: CheckpointCache) -> None:
    model = user_model(f"{file}:net", str(saved(file)), wanted=ConversionRequest(cast="float16"))
    checkpoint = of(model, "torch", cache)
    with pytest.raises(WrongModel, match=r" is torch.float32, by the cast torch.float16$"):
        check_model(checkpoint, CPU, net(file))
    with pytest.raises(WrongModel, match=r" is torch.float32, by the cast torch.float16$"):
        check_structure(checkpoint, CPU, net(file))
    with pytest.raises(WrongModel, match=r" differs in \d+ of \d+ values, first at .*, by the cast "):
        check_model(checkpoint, CPU, cast(cast(net(file), torch.bfloat16), torch.float16))
    check_model(checkpoint, CPU, cast(net(file), torch.float16))


def test_names_and_dtypes_may_differ_at_once(file: Path, tmp_path: Path) -> None:
    state_dict = torch.load(saved(file, halved))
    torch.save({"model": {f"module.{name}": one for name, one in state_dict.items()}}, tmp_path / "run.ckpt")
    model = user_model(f"{file}:net", str(tmp_path / "run.ckpt"), "model", wanted=ConversionRequest(cast="float32"))
    assert model.source
    assert model.source.conversion.notes == ("names without 'module.'",)
    restored = model.saved(lambda _: None)
    assert {tensor.dtype for tensor in restored.parameters()} == {torch.bfloat16}
    assert torch.equal(restored.state_dict()["rnn.bias_hh_l0"], state_dict["rnn.bias_hh_l0"])
    # Another dtype makes a copy of another name.
    assert recognised(saved(file), net(file).state_dict()).conversion.dtypes == ()
    assert dict(model.conversion.dtypes)["norm.weight"] == torch.bfloat16


def test_what_is_cast_lies_beside_the_weights_which_are_written_once(cache: CheckpointCache) -> None:
    uncast = Specification(REHEARSAL, "float32", "torch")
    casts = [Specification(REHEARSAL, "float32", "torch", cast=name) for name in ("bfloat16", "float16")]
    found = [cache.get(one) for one in casts]
    whole = cache.get(uncast)
    assert {one.path for one in found} == {whole.path}
    assert {one.files for one in found} == {whole.files}
    assert {one.identity() for one in found} == {whole.identity()}
    for one in found:
        assert {file.name for file in one.folder.iterdir()} == {"digests.json", "logits.pt", "manifest.json"}
        assert one.outputs()[0].dtype == DTYPES[one.specification.cast]
        check_model(one, CPU, cast(whole.specification.architecture.saved(lambda _: None), one.outputs()[0].dtype))
        # What happens to the weights is seen.
        assert str(whole.path) in {identity.name for identity in one.file_identities}


def test_a_model_that_is_cast_as_it_is_made_has_the_same_names(file: Path, tmp_path: Path) -> None:
    """Whatever a run casts to, it finds the same copy."""
    models = [user_model(f"{file}:net", wanted=ConversionRequest(cast=to)) for to in (None, "bfloat16")]
    plain, to = (Specification(one.label, one.dtype, "torch", one, cast=one.cast) for one in models)
    assert to.weights == plain
    assert to.name == f"{plain.name}-to-bfloat16"
    assert plain.weights is None
    make(plain, tmp_path / "plain", lambda _: None)
    make(to, tmp_path / "to", lambda _: None)
    checkpoint = Checkpoint(to, tmp_path / "to", weights_folder=tmp_path / "plain")
    check_model(checkpoint, CPU, loaded(checkpoint))

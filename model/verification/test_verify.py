from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.specification import Specification
from model.conftest import make_checkpoint
from model.gpt2 import GPT2
from model.user.from_options import user_model
from model.values.bits import difference
from model.verification.verify import WrongModel, check_model

CPU = torch.device("cpu")
NAN = float("nan")
NAME = "trf_blocks.0.ff.layers.0.weight"

MakeOne = Callable[..., Checkpoint]


def loaded(checkpoint: Checkpoint) -> GPT2:
    model = checkpoint.specification.build()
    assert isinstance(model, GPT2)
    model.load_state_dict({name: tensor.clone() for name, tensor in checkpoint.tensors()}, assign=True)
    return model


@pytest.mark.parametrize("layout", ["torch", "per_tensor"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_saved_model_passes(made: MakeOne, layout: str, dtype: str) -> None:
    checkpoint = made(layout, dtype)
    check_model(checkpoint, CPU, loaded(checkpoint))


def test_a_model_made_afresh_does_not(made: MakeOne) -> None:
    checkpoint = made()
    with pytest.raises(WrongModel, match=r"tok_emb.weight differs in 1,024 of 1,024 values, first at flat index 0"):
        check_model(checkpoint, CPU, checkpoint.specification.build())


def replace(model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    module, _, name = NAME.rpartition(".")
    setattr(model.get_submodule(module), name, nn.Parameter(change(model.state_dict()[NAME])))


def hooked(factor: float) -> Callable[[GPT2], object]:
    return lambda model: model.out_head.register_forward_hook(lambda _module, _args, logits: logits * factor)


def first_values(model: GPT2) -> Tensor:
    return model.state_dict()[NAME].view(-1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda model: first_values(model)[5:6].view(torch.int32).bitwise_xor_(1),
            f"{NAME} differs in 1 of 1,024 values, first at flat index 5: ",
        ),
        (
            lambda model: first_values(model)[5:6].fill_(NAN),
            f"{NAME} differs in 1 of 1,024 values, first at flat index 5: nan",
        ),
        # The notebook's own mistake: all parameters right, the mask left as it was.
        (
            lambda model: model.get_buffer("trf_blocks.0.att.mask").fill_(NAN),
            "trf_blocks.0.att.mask differs in 64 of 64 values",
        ),
        # It is in no state dict.
        (
            lambda model: model.final_norm.register_buffer("scratch", torch.empty(3, device="meta"), persistent=False),
            "final_norm.scratch is on meta, not on cpu",
        ),
        (lambda model: replace(model, Tensor.double), f"{NAME} is torch.float64, saved as torch.float32"),
        (lambda model: replace(model, Tensor.t), rf"{NAME} has shape \[16, 64\], saved as \[64, 16\]"),
        (
            lambda model: model.register_buffer("more", torch.zeros(1)),
            "more is in the model, but not in the checkpoint",
        ),
        (
            lambda model: delattr(model.final_norm, "shift"),
            "final_norm.shift is in the checkpoint, but not in the model",
        ),
        (hooked(1.01), "the first logits are off by "),
        (hooked(NAN), r"the first logits are nan at flat index 0, where the saved model's are -?0\.\d"),
    ],
)
def test_a_wrong_model_is_named(made: MakeOne, damage: Callable[[GPT2], object], message: str) -> None:
    checkpoint = made()
    model = loaded(checkpoint)
    damage(model)
    with pytest.raises(WrongModel, match=f"^{message}"):
        check_model(checkpoint, CPU, model)


def test_a_tensor_on_another_device_of_the_kind_is_named(made: MakeOne) -> None:
    checkpoint = made()
    model = SimpleNamespace(
        named_parameters=lambda: [("weight", SimpleNamespace(device=torch.device("cuda:0")))], named_buffers=list
    )
    with pytest.raises(WrongModel, match=r"^weight is on cuda:0, not on cuda:1$"):
        check_model(checkpoint, torch.device("cuda:1"), model)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.complex128])
def test_what_differs_in_several_parts_is_counted_and_the_first_is_told(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("model.values.bits.COMPARED", 8)
    saved = torch.arange(1, 22).to(dtype)
    assert difference(saved.clone(), saved) is None
    changed = saved.clone()
    changed[9] = changed[11] = changed[20] = 0
    told = difference(changed, saved)
    assert told is not None
    assert told.startswith("differs in 3 of 21 values, first at flat index 9: 0")
    assert told.endswith(f", saved as {saved[9].item()}")


def test_bits_decide_not_values(made: MakeOne) -> None:
    """A negative zero is not a zero, and NaNs of the same bits are equal."""
    checkpoint = made()
    # Copies: saving over a file that is mapped ends the process.
    state_dict = {name: tensor.clone() for name, tensor in checkpoint.tensors()}
    special = torch.zeros_like(state_dict[NAME])
    special[0, 1] = NAN
    torch.save({**state_dict, NAME: special}, checkpoint.path)
    model = loaded(checkpoint)
    with pytest.raises(WrongModel, match="the first logits are nan at flat index 0"):
        check_model(checkpoint, CPU, model)
    model.state_dict()[NAME][0, 0] = -0.0
    with pytest.raises(WrongModel, match=rf"{NAME} differs in 1 of 1,024 values, first at flat index 0: -0.0"):
        check_model(checkpoint, CPU, model)


@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.complex64]),
    values=st.lists(st.integers(0, 255), min_size=1, max_size=9),
    offset=st.integers(0, 3),
    data=st.data(),
)
def test_any_flipped_bit_of_any_dtype_is_found(
    dtype: torch.dtype, values: list[int], offset: int, data: st.DataObject
) -> None:
    """Wherever a tensor starts in its storage, and whatever its bits say: NaNs and infinities too."""
    saved = torch.tensor(values * dtype.itemsize, dtype=torch.uint8).view(dtype)
    loaded = torch.cat([torch.ones(offset, dtype=dtype), saved])[offset:]
    assert difference(loaded, saved) is None
    place = data.draw(st.integers(0, len(values) * dtype.itemsize - 1))
    loaded.view(torch.uint8)[place] ^= 1 << data.draw(st.integers(0, 7))
    assert f"differs in 1 of {len(values)} values, first at flat index {place // dtype.itemsize}: " in str(
        difference(loaded, saved)
    )


TIED = """
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(64, 16), nn.Linear(16, 64, bias=False)
        self.head.weight = self.embed.weight

def tied():
    return Tied()
"""


def test_what_is_tied_is_known_where_digests_are_all_that_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TIED)
    specification = Specification("tied", "float32", "dcp", user_model(f"{tmp_path / 'mine.py'}:tied"))
    checkpoint = make_checkpoint(specification, tmp_path / "made")
    model = specification.architecture.saved(lambda _: None)
    check_model(checkpoint, CPU, model)
    head = model.get_submodule("head")
    head.weight = nn.Parameter(model.get_parameter("embed.weight").detach().clone())
    with pytest.raises(WrongModel, match=r"^head.weight was one tensor with embed.weight, and is by itself$"):
        check_model(checkpoint, CPU, model)

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.checkpoints.specification import Specification
from model.gpt2 import GPT2
from model.user.from_options import user_model
from model.values.bits import difference
from model.verification.verify import WrongModel, check_model

CPU = torch.device("cpu")
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


def flip_one_bit(tensor: Tensor) -> None:
    tensor.view(torch.int32).view(-1)[5] ^= 1


def make_not_a_number(tensor: Tensor) -> None:
    tensor.view(-1)[5] = float("nan")


@pytest.mark.parametrize("damage", [flip_one_bit, make_not_a_number])
def test_one_wrong_value_is_named(made: MakeOne, damage: Callable[[Tensor], None]) -> None:
    checkpoint = made()
    model = loaded(checkpoint)
    damage(model.state_dict()[NAME])
    with pytest.raises(WrongModel, match=rf"{NAME} differs in 1 of 1,024 values, first at flat index 5: "):
        check_model(checkpoint, CPU, model)


def test_an_uninitialised_buffer_is_named(made: MakeOne) -> None:
    """The notebook's own mistake: all parameters right, the mask left as it was."""
    checkpoint = made()
    model = loaded(checkpoint)
    model.get_buffer("trf_blocks.0.att.mask").fill_(float("nan"))
    with pytest.raises(WrongModel, match=r"trf_blocks.0.att.mask differs in 64 of 64 values"):
        check_model(checkpoint, CPU, model)


def test_what_stayed_on_meta_is_named(made: MakeOne) -> None:
    """A non-persistent buffer is in no state dict: only a look at the model finds it."""
    checkpoint = made()
    model = loaded(checkpoint)
    model.final_norm.register_buffer("scratch", torch.empty(3, device="meta"), persistent=False)
    with pytest.raises(WrongModel, match=r"final_norm.scratch is on meta, not on cpu"):
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


def replaced(model: nn.Module, tensor: Tensor) -> nn.Module:
    module, _, name = NAME.rpartition(".")
    setattr(model.get_submodule(module), name, nn.Parameter(tensor))
    return model


def test_another_dtype_is_named(made: MakeOne) -> None:
    checkpoint = made()
    model = loaded(checkpoint)
    wrong = replaced(model, model.state_dict()[NAME].double())
    with pytest.raises(WrongModel, match=rf"{NAME} is torch.float64, saved as torch.float32"):
        check_model(checkpoint, CPU, wrong)


def test_another_shape_is_named(made: MakeOne) -> None:
    checkpoint = made()
    model = loaded(checkpoint)
    wrong = replaced(model, model.state_dict()[NAME].T.clone())
    with pytest.raises(WrongModel, match=rf"{NAME} has shape \[16, 64\], saved as \[64, 16\]"):
        check_model(checkpoint, CPU, wrong)


def test_a_missing_and_an_additional_tensor_are_named(made: MakeOne) -> None:
    checkpoint = made()
    model = loaded(checkpoint)
    model.register_buffer("more", torch.zeros(1))
    with pytest.raises(WrongModel, match=r"more is in the model, but not in the checkpoint"):
        check_model(checkpoint, CPU, model)
    del model.more, model.final_norm.shift
    with pytest.raises(WrongModel, match=r"final_norm.shift is in the checkpoint, but not in the model"):
        check_model(checkpoint, CPU, model)


def test_right_weights_in_a_model_that_computes_something_else(made: MakeOne) -> None:
    checkpoint = made()
    model = loaded(checkpoint)
    model.out_head.register_forward_hook(lambda _module, _args, logits: logits * 1.01)
    with pytest.raises(WrongModel, match=r"the first logits are off by "):
        check_model(checkpoint, CPU, model)
    model.out_head.register_forward_hook(lambda _module, _args, logits: logits * float("nan"))
    with pytest.raises(WrongModel, match=r"are nan at flat index 0, where the saved model's are -?0\.\d"):
        check_model(checkpoint, CPU, model)


def test_bits_decide_not_values(made: MakeOne) -> None:
    """A negative zero is not a zero, and NaNs of the same bits are equal."""
    checkpoint = made()
    # Copies: saving over a file that is mapped ends the process.
    state_dict = {name: tensor.clone() for name, tensor in checkpoint.tensors()}
    special = torch.zeros_like(state_dict[NAME])
    special[0, 1] = float("nan")
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
    specification = Specification(
        "tied", "float32", "dcp", user_model(f"{tmp_path / 'mine.py'}:tied", None, None, None)
    )
    make(specification, tmp_path / "made", lambda _: None)
    checkpoint = Checkpoint(specification, tmp_path / "made")
    model = specification.architecture.saved(lambda _: None)
    check_model(checkpoint, CPU, model)
    head = model.get_submodule("head")
    head.weight = nn.Parameter(model.get_parameter("embed.weight").detach().clone())
    with pytest.raises(WrongModel, match=r"^head.weight was one tensor with embed.weight, and is by itself$"):
        check_model(checkpoint, CPU, model)

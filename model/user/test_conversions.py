"""Tests of names and tensors that transformers saves in another form than the model has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.user.conversion_request import AS_IT_IS, ConversionRequest
from model.user.conversions import load
from model.user.source import Source, recognised

transformers = pytest.importorskip("transformers", minversion="5", reason="it has renamed tensors since version 5")

SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
MIXTRAL = SMALL | {"vocab_size": 30, "num_key_value_heads": 2, "num_local_experts": 3}
EARLIER = "names of earlier versions of transformers"
WRITTEN = "tensors as save_pretrained writes them"


def vit() -> Any:
    return transformers.ViTModel(transformers.ViTConfig(**SMALL, image_size=8, patch_size=4))


def mixtral() -> Any:
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**MIXTRAL)).to(torch.bfloat16)


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=30, n_positions=4, n_embd=8, n_layer=1, n_head=2)
    )


def bert() -> Any:
    return transformers.BertModel(transformers.BertConfig(**SMALL, vocab_size=30))


def mixtral_of_classes() -> Any:
    return transformers.MixtralForSequenceClassification(transformers.MixtralConfig(**MIXTRAL, num_labels=5)).to(
        torch.bfloat16
    )


def bert_of_classes() -> Any:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL, vocab_size=30, num_labels=5))


def found(path: Path, make: Callable[[], Any], wanted: ConversionRequest = AS_IT_IS) -> Source:
    def build() -> Any:
        with torch.device("meta"):
            return make()

    return recognised(path, build().state_dict(), None, build, wanted)


def require_loaded(source: Source, make: Callable[[], Any], wanted: dict[str, Any]) -> None:
    model = make()
    load(model, source.state_dict(), converted=source.conversion.converted)
    made = model.state_dict()
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("shard", [None, "1KB"])
@pytest.mark.parametrize(("make", "said"), [(vit, EARLIER), (mixtral, WRITTEN), (gpt2, None)])
def test_what_save_pretrained_writes_is_taken(
    tmp_path: Path, make: Callable[[], Any], said: str | None, shard: str | None
) -> None:
    model = make()
    model.save_pretrained(tmp_path, **({"max_shard_size": shard} if shard else {}))
    source = found(tmp_path, make)
    assert source.conversion.notes == ((said,) if said else ())
    assert source.layout == ("safetensors_sharded" if shard else "safetensors")
    require_loaded(source, make, model.state_dict())


@pytest.mark.parametrize(
    ("made", "make", "missing", "surplus"),
    [
        (bert, bert_of_classes, ("classifier.weight", "classifier.bias"), ""),
        (bert_of_classes, bert, (), "classifier.*"),
        (mixtral, mixtral_of_classes, ("score.weight",), "lm_head.*"),
        (mixtral_of_classes, mixtral, ("lm_head.weight",), "score.*"),
    ],
)
def test_a_head_may_be_missing_or_left_out(
    tmp_path: Path, made: Callable[[], Any], make: Callable[[], Any], missing: tuple[str, ...], surplus: str
) -> None:
    """The body has a prefix more or less, or a tensor for each expert."""
    saved = made()
    saved.save_pretrained(tmp_path)
    globs = tuple({f"{name.split('.')[0]}.*" for name in missing})
    source = found(tmp_path, make, ConversionRequest(missing=globs, surplus=(surplus,) if surplus else ()))
    assert source.conversion.missing == missing
    model = make()
    before = {name: model.state_dict()[name].clone() for name in missing}
    load(model, source.state_dict(), converted=source.conversion.converted, missing=missing)
    for name, value in model.state_dict().items():
        states = {one.removeprefix("bert."): tensor for one, tensor in saved.state_dict().items()}
        assert torch.equal(value, before[name] if name in before else states[name.removeprefix("bert.")]), name


def test_one_expert_of_several_cannot_be_missing(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - beside transformers

    mixtral().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.block_sparse_moe.experts.2.w1.weight"
    save_file({one: value for one, value in state.items() if one != name}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"is of another model, {WRITTEN}: {name} is missing"):
        found(tmp_path, mixtral, ConversionRequest(missing=("*",)))


def test_experts_that_are_not_all_there_are_told_by_the_names_of_the_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - beside transformers

    mixtral().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.block_sparse_moe.experts.2.w1.weight"
    for changed, said in (
        (
            {one: value for one, value in state.items() if one != name},
            f"is of another model, {WRITTEN}: {name} is missing",
        ),
        (state | {name: state[name].float()}, f"holds float32 in '{name}', and the model is built in bfloat16; add"),
    ):
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=said):
            found(tmp_path, mixtral)


def test_gpt2_is_taken_as_it_is_on_the_hub(tmp_path: Path) -> None:
    """Without a prefix and a head, with masks that the model makes by itself."""
    state = gpt2().state_dict()
    hub = {name.removeprefix("transformer."): value for name, value in state.items() if name != "lm_head.weight"}
    torch.save(hub | {"h.0.attn.bias": torch.ones(1, 1, 4, 4).tril()}, tmp_path / "hub.bin")
    source = found(tmp_path / "hub.bin", gpt2)
    assert source.conversion.notes == ("names with 'transformer.'", "without 'h.0.attn.bias'")
    require_loaded(source, gpt2, state)


def test_names_of_the_first_versions_are_taken(tmp_path: Path) -> None:
    state = bert().state_dict()
    first = {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): state[name] for name in state}
    torch.save(first | {"embeddings.position_ids": torch.arange(4)}, tmp_path / "first.bin")
    source = found(tmp_path / "first.bin", bert)
    assert source.conversion.notes == (EARLIER, "without 'embeddings.position_ids'")
    require_loaded(source, bert, state)


def test_the_head_of_another_model_is_no_prefix(tmp_path: Path) -> None:
    state = {f"bert.{name}": value for name, value in bert().state_dict().items()}
    torch.save(state | {"cls.weight": torch.ones(3)}, tmp_path / "headed.bin")
    with pytest.raises(ValueError, match=r"of another model, names without 'bert\.': cls\.weight is not in the model"):
        found(tmp_path / "headed.bin", bert)

"""A folder of `save_pretrained` is built, loaded and called as `from_pretrained` of its library does it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model.conftest import changed, of
from model.user.example_inputs import ExampleInput
from model.user.factory import factory_of
from model.user.from_options import user_model
from model.user.pretrained_folder import PretrainedFolder

transformers = pytest.importorskip("transformers", minversion="5", reason="it builds the models")

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = SMALL | {"vocab_size": 90, "max_position_embeddings": 16}
DECODER = TEXT | {"num_key_value_heads": 2, "head_dim": 16}
VISION = SMALL | {"image_size": 16, "patch_size": 8}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SPECIAL = TOKENS | {"decoder_start_token_id": 1}
T5 = {"vocab_size": 90, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2}
SPEECH = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
WHISPER = SPEECH | SPECIAL | {"vocab_size": 90, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1}

IDS = ("input_ids", (1, 8))
DECODED = ("decoder_input_ids", (1, 8))
PIXELS = ("pixel_values", (1, 3, 16, 16))

# The class of a model, its sizes, its dtype, and its first input.
MODELS: dict[str, tuple[str, dict[str, Any], str, list[tuple[str, tuple[int, ...]]]]] = {
    "llama": ("LlamaForCausalLM", DECODER | TOKENS, "bfloat16", [IDS]),
    "qwen3": ("Qwen3ForCausalLM", DECODER, "bfloat16", [IDS]),
    "gemma3": ("Gemma3ForCausalLM", DECODER | TOKENS, "bfloat16", [IDS]),
    "bert": ("BertForMaskedLM", TEXT, "float32", [IDS]),
    "t5": ("T5ForConditionalGeneration", T5, "float16", [IDS, DECODED]),
    "vit": ("ViTForImageClassification", VISION, "float32", [PIXELS]),
    "clip": ("CLIPModel", {"text_config": TEXT | TOKENS, "vision_config": VISION}, "float32", [IDS, PIXELS]),
    "whisper": (
        "WhisperForConditionalGeneration",
        WHISPER | {"max_source_positions": 20, "max_target_positions": 20},
        "float32",
        [("input_features", (1, 80, 40)), DECODED],
    ),
    "mamba": ("MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 90}, "float32", [IDS]),
    "mixtral": ("MixtralForCausalLM", DECODER | {"num_local_experts": 3}, "float32", [IDS]),
    # No input is known of it.
    "perceiver": ("PerceiverModel", {"num_latents": 4, "d_latents": 16, "d_model": 16, "num_blocks": 1}, "float32", []),
}


def saved(name: str, folder: Path, **options: Any) -> Path:
    """A folder as transformers writes it."""
    class_name, sizes, dtype, _ = MODELS[name]
    model_class = getattr(transformers, class_name)
    torch.manual_seed(5)
    model = model_class._from_config(model_class.config_class(**sizes), dtype=getattr(torch, dtype))
    for kept in (one for key, one in model.named_parameters() if dtype == "float16" and key.endswith(".wo.weight")):
        kept.data = kept.data.float()
    model.save_pretrained(folder, **options)
    return folder


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "8KB"}], ids=["one file", "sharded"])
@pytest.mark.parametrize("name", MODELS)
def test_a_folder_gives_the_model_that_from_pretrained_gives(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    class_name, _, dtype, asked = MODELS[name]
    folder = saved(name, tmp_path / name, **options)
    random = torch.get_rng_state()
    model = of(folder)
    assert torch.equal(torch.get_rng_state(), random)
    assert (model.label, model.dtype) == (name, dtype)
    assert model.source
    assert model.source.layout == ("safetensors_sharded" if options else "safetensors")
    ours, theirs = model.saved(lambda _: None), getattr(transformers, class_name).from_pretrained(folder)
    assert type(ours) is type(theirs)
    assert ours.training == theirs.training
    for kind in ("state_dict", "named_buffers", "named_parameters"):
        here, there = (dict(getattr(one, kind)()) for one in (ours, theirs))
        assert {key: value.dtype for key, value in here.items()} == {key: value.dtype for key, value in there.items()}
        assert all(torch.equal(value, there[key]) for key, value in here.items())
    made = model.make_input() if model.make_input else {}
    assert [(key, tuple(value.shape)) for key, value in made.items()] == asked
    outputs = model.outputs(ours)
    assert bool(outputs) == bool(asked)
    # The weights are equal by their bits. Theirs may lie at odd addresses of a file, where a CPU rounds otherwise.
    torch.testing.assert_close(outputs, model.outputs(theirs))


def test_a_skeleton_has_the_names_of_the_model_and_no_values(tmp_path: Path) -> None:
    model = of(saved("t5", tmp_path / "t5"))
    skeleton, real = model.skeleton().state_dict(), model.build().state_dict()
    assert all(value.is_meta for value in skeleton.values())
    assert {key: value.dtype for key, value in skeleton.items()} == {key: value.dtype for key, value in real.items()}
    # As from_pretrained keeps it.
    assert {value.dtype for key, value in skeleton.items() if key.endswith(".wo.weight")} == {torch.float32}


def test_what_an_earlier_version_wrote_fits(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    expected = of(folder).saved(lambda _: None).state_dict()
    earlier = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in expected.items()
    }
    torch.save(earlier | {"bert.embeddings.position_ids": torch.arange(16)[None]}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    # It named no dtype, or otherwise, and not whose code it is.
    model = of(changed(folder, dtype=None, torch_dtype="float32", transformers_version="2.0"))
    found = model.saved(lambda _: None).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert model.source
    assert "names of earlier versions of transformers" in str(model.source.note())


def test_a_base_model_fits_the_architecture_with_a_head(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=90, n_positions=16, n_embd=32, n_layer=1, n_head=2, **TOKENS)
    base = transformers.GPT2Model(config)
    base.save_pretrained(tmp_path / "gpt2")
    # Its head is its embedding.
    model = of(changed(tmp_path / "gpt2", architectures=["GPT2LMHeadModel"]))
    found = model.saved(lambda _: None).state_dict()
    assert all(torch.equal(found[f"transformer.{key}"], value) for key, value in base.state_dict().items())
    assert model.source
    assert "names with 'transformer.'" in str(model.source.note())


@pytest.mark.parametrize(
    ("beside", "taken"),
    [
        ({"training_args.bin": {}, "optimizer.pt": {"state": {}}}, "model.safetensors"),
        ({"pytorch_model.bin": {"x": torch.ones(3)}}, "model.safetensors"),
    ],
)
def test_weights_are_those_that_from_pretrained_takes(tmp_path: Path, beside: dict[str, Any], taken: str) -> None:
    folder = saved("llama", tmp_path / "llama")
    for name, content in beside.items():
        torch.save(content, folder / name)
    source = of(folder).source
    assert source
    assert (source.path, source.note()) == (folder / taken, None)


def test_a_folder_is_found_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("llama", tmp_path / "my own llama")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    names = {
        "my own llama": "my own llama",
        "my own llama/": "my own llama",
        "./link": "link",
        f"{tmp_path}/link/": "link",
        "link/../my own llama": "my own llama",
    }
    models = {written: of(written) for written in names}
    monkeypatch.chdir("/")
    for written, model in models.items():
        assert (model.label, model.factory.display_name) == (names[written], f"{names[written]}/config.json")
        # As another process finds it.
        assert factory_of(model.factory.text) == PretrainedFolder(model.factory.text)
        model.saved(lambda _: None)
        assert model.factory.folder is not None
        assert model.factory.folder.samefile(folder)


def test_a_model_in_the_cache_of_the_hub_has_the_name_of_the_model(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--meta-llama--Llama-3-8B" / "snapshots" / "0123abc"
    saved("llama", snapshot)
    assert of(snapshot).label == "Llama-3-8B"


def test_a_configuration_alone_has_random_weights(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path / "llama")
    config = folder / "config.json"
    assert of(config).source is None
    (folder / "model.safetensors").unlink()
    assert of(config).source is user_model(str(folder)).source is None
    assert of(config).label == "llama"
    assert of(config.rename(folder / "small.json")).label == "small"


def test_another_configuration_is_another_model(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path / "llama")
    before = of(folder).identity()
    with (folder / "config.json").open("a") as file:
        file.write("\n")
    assert of(folder).identity() != before


def test_an_example_of_the_users_wins(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path / "llama")
    (tmp_path / "mine.py").write_text("import torch\ndef ids(): return {'input_ids': torch.tensor([[7]])}")
    model = user_model(str(folder), example=f"{tmp_path}/mine.py:ids")
    assert model.make_input
    assert model.make_input()["input_ids"].tolist() == [[7]]
    assert [one.shape[:2] for one in model.outputs(model.build())][:1] == [(1, 1)]


def test_an_input_is_the_same_each_time_and_within_its_range() -> None:
    ids, pixels = (
        ExampleInput("ids", (1, 7), torch.int64, 3).tensor(),
        ExampleInput("pixels", (2, 40), torch.bfloat16).tensor(),
    )
    assert ids.tolist() == [[0, 1, 2, 0, 1, 2, 0]]
    assert (pixels.dtype, pixels.shape) == (torch.bfloat16, (2, 40))
    assert (float(pixels.min()), float(pixels.max())) == (-1, 1)


def test_a_checkpoint_that_is_named_is_taken_instead_of_the_folders(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path / "llama")
    other = (folder / "model.safetensors").rename(tmp_path / "other.safetensors")
    source = user_model(str(folder), str(other)).source
    assert source
    assert source.path == other


def test_diffusers_builds_its_models(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    sizes = {"sample_size": 8, "block_out_channels": (16,), "norm_num_groups": 8, "layers_per_block": 1}
    unet = diffusers.UNet2DConditionModel(**sizes, **blocks, cross_attention_dim=8, attention_head_dim=8).eval()
    unet.save_pretrained(tmp_path / "unet")
    model = of(tmp_path / "unet")
    ours = model.saved(lambda _: None)
    assert all(torch.equal(value, unet.state_dict()[key]) for key, value in ours.state_dict().items())
    [output] = model.outputs(ours)
    assert output.shape == (1, 4, 8, 8)

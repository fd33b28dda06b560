"""A model on the hub is planned like the folder that it would be downloaded to, and the run names its source."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.plugin.cases import cases
from bench.plugin.run_results import notes
from bench.plugin.settings import Settings
from bench.plugin.test_options import chosen
from model.conftest import changed, refusal
from model.user.local_hub import LocalHub, in_place_of_the_hub

transformers = pytest.importorskip("transformers", minversion="5", reason="it builds the models")

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = SMALL | {"vocab_size": 90, "num_key_value_heads": 2, "head_dim": 16}
MOE = TEXT | {"num_experts": 3, "moe_intermediate_size": 24, "num_experts_per_tok": 2}
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("LlamaForCausalLM", TEXT | {"tie_word_embeddings": True}, "float32"),
    "llama-bf16": ("LlamaForCausalLM", TEXT, "bfloat16"),
    # Its files have a tensor for each expert.
    "moe": ("Qwen3MoeForCausalLM", MOE, "bfloat16"),
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with in_place_of_the_hub({f"acme/{name}": tmp_path / name for name in MODELS}) as served:
        yield served


def saved(folder: Path) -> Path:
    """Save the model that has the name of the folder, in several files."""
    class_name, sizes, dtype = MODELS[folder.name]
    model_class = getattr(transformers, class_name)
    config = model_class.config_class(**sizes, dtype=dtype)
    model_class._from_config(config, dtype=config.dtype).save_pretrained(folder, max_shard_size="8KB")
    return folder


def planned(model: Path | str, **options: Any) -> Settings:
    return chosen(model=str(model), plan=True, **options)


def figures(settings: Settings) -> dict[str, tuple[Any, ...]]:
    """The sizes from which the bounds of every strategy are computed."""
    planned = {case.strategy_name: case.specification for case in cases(settings, real=False)}
    return {name: (one.layout, one.footprint, one.saved, one.missing) for name, one in planned.items()}


@pytest.mark.parametrize("cast", [None, "float16"])
@pytest.mark.parametrize("name", MODELS)
def test_the_figures_are_those_of_the_folder_and_of_its_configuration(
    hub: LocalHub, tmp_path: Path, name: str, cast: str | None
) -> None:
    folder = saved(tmp_path / name)
    of_hub = planned(f"hub:acme/{name}", cast=cast)
    assert len(figures(of_hub)) > 5
    assert figures(of_hub) == figures(planned(folder, cast=cast)) == figures(planned(folder / "config.json", cast=cast))
    assert len([*folder.glob("*.safetensors")]) > 2


def test_it_has_the_name_of_its_repository_and_commit(hub: LocalHub, tmp_path: Path) -> None:
    saved(tmp_path / "llama")
    of_hub = planned("hub:acme/llama@refs/pr/1")
    [case, *_] = cases(of_hub, real=False)
    assert case.user_model
    assert (case.user_model.factory.display_name, case.size) == ("hub:acme/llama@0123456789ab", "llama")
    [fetched] = notes(of_hub)
    assert fetched.startswith("llama: hub:acme/llama@0123456789ab: config.json and the headers of ")
    assert fetched.endswith(" bytes of headers), and no weights")


def test_what_the_files_have_counts(hub: LocalHub, tmp_path: Path) -> None:
    """The configuration says another dtype than the files, and no head is saved."""
    folder = changed(saved(tmp_path / "llama-bf16"), dtype="float32", architectures=["LlamaForSequenceClassification"])
    said = refusal(planned, "hub:acme/llama-bf16")
    assert said.startswith("--model: hub:acme/llama-bf16@0123456789ab/model.safetensors.index.json is of another mode")
    options: dict[str, Any] = {"allow_missing": ["score.*"], "allow_surplus": ["lm_head.*"]}
    said = refusal(planned, "hub:acme/llama-bf16", **options)
    assert "index.json holds bfloat16, and the model is built in float32; add --cast float32" in said
    of_hub = planned("hub:acme/llama-bf16", **options, cast="float32")
    assert of_hub.dtype == "bfloat16"
    assert figures(of_hub) == figures(planned(folder, **options, cast="float32"))


def test_without_safetensors_it_is_planned_from_its_configuration(hub: LocalHub, tmp_path: Path) -> None:
    folder = saved(tmp_path / "llama")
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"PK\3\4")
    of_hub = planned("hub:acme/llama")
    assert figures(of_hub) == figures(planned(folder / "config.json"))
    [note] = notes(of_hub)
    assert note.endswith("no .safetensors file that transformers loads")


def test_a_checkpoint_of_the_users_counts_in_place_of_that_of_the_hub(hub: LocalHub, tmp_path: Path) -> None:
    folder = saved(tmp_path / "llama")
    of_hub = planned("hub:acme/llama", checkpoint=str(folder))
    assert of_hub.own
    assert of_hub.own.source
    assert of_hub.own.source.path == folder / "model.safetensors.index.json"
    assert not [path for path in hub.sent if path.endswith((".safetensors", "index.json"))]


def test_a_model_that_no_class_builds_is_planned_from_its_files(hub: LocalHub, tmp_path: Path) -> None:
    folder = saved(tmp_path / "llama-bf16")
    known = planned("hub:acme/llama-bf16")
    changed(folder, architectures=["FutureForCausalLM"], auto_map={"AutoModel": "code.Future"})
    unknown = planned("hub:acme/llama-bf16")
    sizes = [[sorted(footprint.sizes) for _, footprint, *_ in figures(one).values()] for one in (unknown, known)]
    assert sizes[0] == sizes[1]
    assert (unknown.sizes, unknown.dtype) == (known.sizes, known.dtype)
    assert f"because transformers {transformers.__version__} has no model" in notes(unknown)[1]
    assert notes(planned(folder)) == [notes(unknown)[1]]


def test_without_a_plan_nothing_is_fetched(hub: LocalHub) -> None:
    said = refusal(chosen, model="hub:acme/llama")
    assert said.startswith(
        "--model: hub:acme/llama is planned only, since no weights are downloaded here; add --plan, or"
    )
    assert refusal(chosen, model="hub:llama", plan=True).startswith(
        "--model: 'hub:llama' is not the name of a model on the hub; "
    )
    assert not hub.sent

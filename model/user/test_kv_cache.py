"""KV caches of small models, counted on meta and compared with the sizes in their configurations."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.user.from_options import user_model
from model.user.kv_cache import KVCache, cache_of, kv_cache

transformers = pytest.importorskip("transformers")

# Sizes of two layers, with two heads for keys and values of 16 numbers each.
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 100}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
# Keys and values of a layer, in bfloat16.
LAYER = 2 * 2 * 16 * 2


def skeleton(name: str, config: str, **sizes: Any) -> nn.Module:
    with torch.device("meta"):
        made = getattr(transformers, config)(**sizes)
        model: nn.Module = getattr(transformers, name)._from_config(made, dtype=torch.bfloat16).eval()
    return model


def test_heads_that_share_keys_and_values_count_once() -> None:
    llama = skeleton("LlamaForCausalLM", "LlamaConfig", **SMALL, **HEADS, max_position_embeddings=512)
    assert kv_cache(llama) == KVCache(0, 2 * LAYER, most_tokens=512)


def test_the_cache_is_of_the_dtype_that_the_model_computes_in() -> None:
    llama = skeleton("LlamaForCausalLM", "LlamaConfig", **SMALL, **HEADS, max_position_embeddings=512).float()
    assert kv_cache(llama) == KVCache(0, 4 * LAYER, most_tokens=512)


def test_experts_have_no_cache_of_their_own() -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    qwen = skeleton("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **SMALL, **HEADS, **experts, max_position_embeddings=512)
    assert kv_cache(qwen) == KVCache(0, 2 * LAYER, most_tokens=512)


def test_layers_with_a_window_stop_growing_and_others_go_on() -> None:
    kinds = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
    gemma = skeleton("Gemma3ForCausalLM", "Gemma3TextConfig", **SMALL, **HEADS, **kinds, max_position_embeddings=512)
    found = kv_cache(gemma)
    # Transformers keeps one token less than the window: the next one completes it.
    assert found == KVCache(0, 2 * LAYER, window=15, later_bytes=LAYER, most_tokens=512)
    assert found.bytes_of(100) == (15 + 100) * LAYER


def test_a_window_in_every_layer_ends_the_growth() -> None:
    mistral = skeleton(
        "MistralForCausalLM", "MistralConfig", **SMALL, **HEADS, sliding_window=16, max_position_embeddings=512
    )
    assert kv_cache(mistral) == KVCache(0, 2 * LAYER, window=15, later_bytes=0, most_tokens=512)


def test_a_window_as_long_as_the_context_is_none() -> None:
    mistral = skeleton(
        "MistralForCausalLM", "MistralConfig", **SMALL, **HEADS, sliding_window=512, max_position_embeddings=512
    )
    assert kv_cache(mistral) == KVCache(0, 2 * LAYER, most_tokens=512)


def test_a_compressed_cache_is_counted_as_the_model_keeps_it() -> None:
    """Multi-head latent attention: whatever this version of transformers keeps, it is the bytes of its tensors."""
    sizes = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    sizes |= {
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
    }
    sizes |= SMALL | {"num_attention_heads": 4, "num_key_value_heads": 4, "moe_intermediate_size": 32}
    found = kv_cache(skeleton("DeepseekV3ForCausalLM", "DeepseekV3Config", **sizes, max_position_embeddings=512))
    assert found
    # Keys of 16 numbers and values of 8 for four heads; newer versions keep 16 and 8 for all heads together.
    assert found.token_bytes in {2 * 4 * (16 + 8) * 2, 2 * (16 + 8) * 2}
    assert found.sequence_bytes == 0


def test_of_an_encoder_and_a_decoder_both_count() -> None:
    t5 = skeleton("T5ForConditionalGeneration", "T5Config", d_model=64, num_layers=2, d_ff=128, num_heads=2, d_kv=16)
    # Two layers, each with its own tokens and those of the encoder.
    found = kv_cache(t5)
    assert found == KVCache(0, 2 * 2 * LAYER, paired=True, most_tokens=found.most_tokens if found else None)


def test_a_recurrent_model_has_a_state_a_sequence() -> None:
    mamba = skeleton(
        "MambaForCausalLM", "MambaConfig", hidden_size=64, num_hidden_layers=2, vocab_size=100, state_size=16
    )
    # Of 128 channels: four inputs of the convolution in bfloat16, and 16 numbers of state, in the dtype of those.
    found = kv_cache(mamba)
    assert found
    assert found.token_bytes == 0
    assert found.sequence_bytes in {2 * 128 * (4 * 2 + 16 * size) for size in (2, 4)}


@pytest.mark.parametrize(
    ("name", "config", "sizes"),
    [
        ("BertModel", "BertConfig", SMALL | {"num_attention_heads": 4}),
        ("ViTModel", "ViTConfig", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}),
    ],
)
def test_a_model_that_writes_no_text_has_none(name: str, config: str, sizes: dict[str, Any]) -> None:
    assert kv_cache(skeleton(name, config, **sizes)) is None


def test_a_module_without_a_configuration_has_none() -> None:
    assert kv_cache(nn.Linear(3, 3)) is None


def test_a_model_that_cannot_run_on_meta_has_none() -> None:
    class Config:
        vocab_size = 10

    class Asks(nn.Module):
        config = Config()

        def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
            raise RuntimeError(f"no kernel for {input_ids.device}, {use_cache}")

    assert kv_cache(Asks()) is None


@pytest.mark.parametrize(
    ("cache", "count", "tokens"),
    [
        (KVCache(0, 10), 99, 9),
        (KVCache(50, 10), 99, 4),
        (KVCache(100, 10), 99, 0),
        (KVCache(0, 10, window=5, later_bytes=4), 49, 4),
        (KVCache(0, 10, window=5, later_bytes=4), 53, 5),
        (KVCache(0, 10, window=5, later_bytes=4), 54, 6),
        (KVCache(0, 10, window=5), 50, None),
        (KVCache(0, 10, window=5), 49, 4),
        (KVCache(10, 0), 10, None),
    ],
)
def test_the_longest_sequence_fits_and_a_longer_one_does_not(cache: KVCache, count: int, tokens: int | None) -> None:
    assert cache.tokens_in(count) == tokens
    if tokens:
        assert cache.bytes_of(tokens) <= count < cache.bytes_of(tokens + 1)


def test_ranks_that_divide_the_heads_take_their_part() -> None:
    assert KVCache(9, 10, window=5, later_bytes=4).divided(4) == KVCache(3, 3, window=5, later_bytes=1)


def test_a_model_of_seventy_billion_parameters_is_counted_on_meta() -> None:
    sizes = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
    llama = skeleton("LlamaForCausalLM", "LlamaConfig", **sizes, num_key_value_heads=8, vocab_size=128256)
    found = kv_cache(llama)
    assert found
    assert (found.sequence_bytes, found.token_bytes) == (0, 320 * 1024)


def test_a_folder_is_counted_as_its_weights_end(tmp_path: Path) -> None:
    transformers.LlamaConfig(**SMALL, **HEADS, architectures=["LlamaForCausalLM"], dtype="float32").save_pretrained(
        tmp_path
    )
    model = user_model(str(tmp_path / "config.json"))
    for cast, token_bytes in (("", 4 * LAYER), ("bfloat16", 2 * LAYER)):
        found = cache_of(replace(model, cast=cast))
        assert found
        assert found.token_bytes == token_bytes


def test_a_model_that_cannot_be_built_on_meta_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\n\ndef net():\n    torch.zeros(1).item()\n    return nn.Linear(2, 2)\n"
    )
    assert cache_of(user_model(f"{tmp_path / 'mine.py'}:net")) is None

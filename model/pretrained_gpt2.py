"""GPT-2 as a model of transformers: its class and names, with the random weights of this suite.

In transformers, one projection makes query, key and value, the weights of projections are transposed, and the causal
mask is not a buffer. So the state dict is smaller.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.architecture import DTYPES, RandomGPT2
from model.gpt2 import CONFIGS, PROMPT, Config
from model.weights import Progress


@dataclass(frozen=True)
class PretrainedGPT2:
    """A `GPT2LMHeadModel` of a size of `SIZES` and a dtype of `DTYPES`, which computes what `RandomGPT2` does."""

    size: str
    dtype: str

    def build(self) -> nn.Module:
        return pretrained(CONFIGS[self.size], DTYPES[self.dtype], tied=False)

    def skeleton(self) -> nn.Module:
        with torch.device("meta"):
            return self.build()

    def saved(self, progress: Progress) -> nn.Module:
        weights = RandomGPT2(self.size, self.dtype).saved(progress).state_dict()
        model = self.skeleton()
        model.load_state_dict(renamed(weights, CONFIGS[self.size]), assign=True)
        return model.eval()

    def outputs(self, model: nn.Module) -> list[Tensor]:
        device = next(model.parameters()).device
        with torch.inference_mode():
            return [model.eval()(torch.tensor(PROMPT, device=device), use_cache=False).logits]

    def identity(self) -> dict[str, Any]:
        whole = RandomGPT2(self.size, self.dtype).identity()
        return whole | {"model": whole["model"] | {"architecture": "transformers gpt2"}}


def pretrained(config: Config, dtype: torch.dtype, *, tied: bool) -> nn.Module:
    """Build the model of transformers with these hyper-parameters, freshly initialised."""
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415 - of an extra, and it takes a second

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocabulary,
            n_positions=config.context,
            n_embd=config.emb_dim,
            n_layer=config.layers,
            n_head=config.heads,
            tie_word_embeddings=tied,
            # No text is generated, and transformers warns of the defaults where the vocabulary is small.
            bos_token_id=None,
            eos_token_id=None,
            # A saved model is loaded with the dtype of its configuration.
            dtype=dtype,
        )
    )
    return model.to(dtype)


def renamed(weights: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Return a state dict of the suite's GPT-2 as one of transformers' GPT-2."""
    found = {
        "transformer.wte.weight": weights["tok_emb.weight"],
        "transformer.wpe.weight": weights["pos_emb.weight"],
        "transformer.ln_f.weight": weights["final_norm.scale"],
        "transformer.ln_f.bias": weights["final_norm.shift"],
        "lm_head.weight": weights["out_head.weight"],
    }
    for layer in range(config.layers):
        ours, theirs = f"trf_blocks.{layer}", f"transformer.h.{layer}"
        for kind in ("weight", "bias"):
            whole = [weights[f"{ours}.att.{name}.{kind}"] for name in ("W_query", "W_key", "W_value")]
            found[f"{theirs}.attn.c_attn.{kind}"] = torch.cat(whole).t().contiguous()
            for their_name, name in (
                ("attn.c_proj", "att.out_proj"),
                ("mlp.c_fc", "ff.layers.0"),
                ("mlp.c_proj", "ff.layers.2"),
            ):
                found[f"{theirs}.{their_name}.{kind}"] = weights[f"{ours}.{name}.{kind}"].t().contiguous()
        for number in ("1", "2"):
            found[f"{theirs}.ln_{number}.weight"] = weights[f"{ours}.norm{number}.scale"]
            found[f"{theirs}.ln_{number}.bias"] = weights[f"{ours}.norm{number}.shift"]
    return found

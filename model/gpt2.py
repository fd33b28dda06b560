"""GPT-2, the model whose weights are loaded by default.

The architecture, the hyper-parameters and the names in the state dict are those of the `GPTModel`
in Sebastian Raschka's "Build a Large Language Model (From Scratch)", with biases on the query, key
and value projections and an untied output head, so that a checkpoint of that model loads here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of one GPT-2."""

    emb_dim: int
    layers: int
    heads: int
    vocabulary: int = 50257
    context: int = 1024


SIZES = {
    #                emb_dim, layers, heads   parameters   tensors   state bytes (float32)
    "tiny": Config(64, 2, 4),  #               6,598,528        39      34,782,720
    "small": Config(768, 12, 12),  #         163,037,184       209     702,480,384
    "medium": Config(1024, 24, 16),  #       406,286,336       413   1,725,808,640
    "large": Config(1280, 36, 20),  #        838,359,040       617   3,504,431,104
    "xl": Config(1600, 48, 25),  #         1,638,022,400       821   6,753,416,192
    "gpt3": Config(12288, 96, 96),  #    175,209,234,432     1,637 701,239,590,912
}

# Loaded before a measured load: then one-time costs of a process are over.
REHEARSAL = "rehearsal"

CONFIGS = SIZES | {REHEARSAL: Config(16, 1, 2, vocabulary=64, context=8)}


class Attention(nn.Module):
    """Causal self-attention; its mask is a persistent float32 buffer, part of every checkpoint."""

    mask: Tensor

    def __init__(self, config: Config, dtype: torch.dtype) -> None:
        super().__init__()
        width = config.emb_dim
        self.heads = config.heads
        self.W_query = nn.Linear(width, width, dtype=dtype)
        self.W_key = nn.Linear(width, width, dtype=dtype)
        self.W_value = nn.Linear(width, width, dtype=dtype)
        self.out_proj = nn.Linear(width, width, dtype=dtype)
        # 1 above the diagonal, for tokens that come later.
        future = torch.ones(config.context, config.context, dtype=torch.float32).triu_(1)
        self.register_buffer("mask", future)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        query, key, value = (
            project(x).view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for project in (self.W_query, self.W_key, self.W_value)
        )
        allowed = self.mask[:tokens, :tokens] == 0
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return self.out_proj(context.transpose(1, 2).reshape(batch, tokens, width))


class FeedForward(nn.Module):
    def __init__(self, config: Config, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.emb_dim, 4 * config.emb_dim, dtype=dtype),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * config.emb_dim, config.emb_dim, dtype=dtype),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LayerNorm(nn.Module):
    """Layer normalisation whose parameters are called `scale` and `shift`."""

    def __init__(self, config: Config, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(config.emb_dim, dtype=dtype))
        self.shift = nn.Parameter(torch.zeros(config.emb_dim, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.scale.shape, self.scale, self.shift)


class TransformerBlock(nn.Module):
    def __init__(self, config: Config, dtype: torch.dtype) -> None:
        super().__init__()
        self.att = Attention(config, dtype)
        self.ff = FeedForward(config, dtype)
        self.norm1 = LayerNorm(config, dtype)
        self.norm2 = LayerNorm(config, dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))


class GPT2(nn.Module):
    """A decoder-only transformer: token ids `[batch, tokens]` in, logits `[batch, tokens, vocabulary]` out.

    `dtype` is that of the parameters; the causal masks stay float32. Honours `torch.device` as a context.
    """

    # Of tensor parallelism, as models of transformers bring it. An attention counts its heads, and needs all.
    tp_plan: ClassVar[Mapping[str, str]] = {
        "trf_blocks.*.att.W_query": "colwise_gather_output",
        "trf_blocks.*.att.W_key": "colwise_gather_output",
        "trf_blocks.*.att.W_value": "colwise_gather_output",
        "trf_blocks.*.att.out_proj": "rowwise_split_input",
        "trf_blocks.*.ff.layers.0": "colwise",
        "trf_blocks.*.ff.layers.2": "rowwise",
        "tok_emb": "embedding_rowwise",
        "out_head": "colwise_gather_output",
    }

    def __init__(self, config: Config, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(config.vocabulary, config.emb_dim, dtype=dtype)
        self.pos_emb = nn.Embedding(config.context, config.emb_dim, dtype=dtype)
        self.trf_blocks = nn.Sequential(*(TransformerBlock(config, dtype) for _ in range(config.layers)))
        self.final_norm = LayerNorm(config, dtype)
        self.out_head = nn.Linear(config.emb_dim, config.vocabulary, bias=False, dtype=dtype)

    def forward(self, token_ids: Tensor) -> Tensor:
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)
        x = self.tok_emb(token_ids) + self.pos_emb(positions)
        return self.out_head(self.final_norm(self.trf_blocks(x)))


# The prompt of every first-logits measurement: that of the notebook that started this suite.
PROMPT = ((1, 2, 3),)


def first_logits(model: nn.Module) -> Tensor:
    """Return the logits `[1, 3, vocabulary]` of a model for `PROMPT`, in evaluation mode, on its own device."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        return model.eval()(torch.tensor(PROMPT, device=device))

"""A small decoder as people write it, for tests of models that many ranks share: a user's model, with a user's plan.

Its blocks are in an `nn.ModuleList`, its head is its embedding, and no checkpoint has the buffer with its positions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, BLOCKS, VOCABULARY, CONTEXT = 16, 4, 3, 37, 8


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.o_proj = nn.Linear(WIDTH, WIDTH)
        self.up_proj, self.down_proj = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        batch, tokens, _ = y.shape
        # A rank may have some of the heads.
        query, key, value = (
            project(y).view(batch, tokens, -1, WIDTH // HEADS).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        context = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.o_proj(context.transpose(1, 2).reshape(batch, tokens, -1))
        return x + self.down_proj(functional.gelu(self.up_proj(x)))


class Decoder(nn.Module):
    """Token ids `[batch, tokens]` in, logits `[batch, tokens, VOCABULARY]` out."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight
        # Of no dimension, as CLIP has one: FSDP2 does not shard it.
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("positions", torch.linspace(-1, 1, CONTEXT * WIDTH).view(CONTEXT, WIDTH), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = x + self.positions[: tokens.shape[1]].to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.head(x) * self.scale


def decoder() -> Decoder:
    """Build it with random weights, biases and norms included."""
    model = Decoder()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def example() -> Tensor:
    return torch.tensor([[1, 2, 3]])


PLAN = {
    "blocks.*.q_proj": "colwise",
    "blocks.*.k_proj": "colwise",
    "blocks.*.v_proj": "colwise",
    "blocks.*.o_proj": "rowwise",
    "blocks.*.up_proj": "colwise",
    "blocks.*.down_proj": "rowwise",
}


def torch_plan() -> dict[str, object]:
    """Return the same plan in PyTorch's own styles."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel  # noqa: PLC0415 - it takes a second

    made = {"colwise": ColwiseParallel, "rowwise": RowwiseParallel}
    return {name: made[style]() for name, style in PLAN.items()}

"""Specimens to save and load: models of any kind, and checkpoints that do not fit theirs."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.conformance.blueprint import Blueprint, PlaceName, Stored
from bench.conformance.misfits import MisfitCheckpoint
from bench.conformance.own_model import OwnModel
from bench.conformance.pretrained_models import Pretrained
from bench.conformance.stateful_modules import StatefulModel
from model.gpt2 import GPT2, Config


@dataclass(frozen=True)
class ManyTensors:
    """A model of many tensors with a single element, and one of many elements."""

    small: int
    huge: int

    @property
    def model(self) -> Blueprint:
        names = (PlaceName(f"block.weight{index}", index) for index in range(1, self.small + 1))
        return Blueprint(
            (Stored(shape=(self.huge,)), *(Stored(shape=(1,)),) * self.small), (*names, PlaceName("head.weight"))
        )

    def build(self) -> nn.Module:
        return self.model.build()

    def saved(self) -> nn.Module:
        return self.model.saved()

    def state_dict(self, model: nn.Module) -> dict[str, Any]:
        return model.state_dict()

    def suspects(self) -> set[str]:
        """None: every loader can load it."""
        return set()

    def __str__(self) -> str:
        return f"{self.small:,} parameters of 1 element, and one of {self.huge:,}"


@dataclass(frozen=True)
class Transformer:
    """A GPT-2; `tied`: its output head is its token embedding, as in the one that people download."""

    config: Config
    dtype: str = "float32"
    tied: bool = True

    def build(self) -> GPT2:
        model = GPT2(self.config, getattr(torch, self.dtype))
        if self.tied:
            model.out_head.weight = model.tok_emb.weight
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.fill_(float("nan"))
        return model

    def saved(self) -> GPT2:
        model = self.build()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.02, generator=generator)
            for mask in model.buffers():
                mask.fill_(1).triu_(1)
        return model

    def state_dict(self, model: nn.Module) -> dict[str, Any]:
        return model.state_dict()

    def suspects(self) -> set[str]:
        """None: every loader can load it."""
        return set()

    def __str__(self) -> str:
        return f"GPT-2 {self.config}, {self.dtype}, {'tied' if self.tied else 'untied'}"


Specimen = Blueprint | StatefulModel | ManyTensors | Transformer | MisfitCheckpoint | Pretrained | OwnModel

"""Tests of memory that a timed load's process keeps from one load to the next."""

import weakref
from types import SimpleNamespace
from typing import cast

import torch
from torch import Tensor, nn

from bench.measure.load_process import CachedOutputs
from model.checkpoints.checkpoint import Checkpoint


def test_outputs_go_with_their_model() -> None:
    """On a device they would be memory that the load seems to keep."""
    computed: list[weakref.ref[Tensor]] = []

    def outputs(model: nn.Module) -> list[Tensor]:
        output = model.get_parameter("weight").detach() * 2
        computed.append(weakref.ref(output))
        return [output]

    checkpoint = SimpleNamespace(
        specification=SimpleNamespace(architecture=SimpleNamespace(outputs=outputs)),
        reference_outputs=lambda: SimpleNamespace(changed=()),
    )
    cached = CachedOutputs(cast("Checkpoint", checkpoint), torch.device("cpu"))
    for _ in range(2):
        model = nn.Linear(2, 2)
        cached.use(model)
        assert computed[-1]() is not None
        del model
        assert computed[-1]() is None

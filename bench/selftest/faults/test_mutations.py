"""A fuzzer of the readers: of a changed checkpoint they read what the file says, or say what is wrong in one line."""

import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.conformance.profiles import EXAMPLES
from bench.selftest.faults.mutations import SAMPLES, mutate, plain_state, state
from model.examine.trust import UntrustedCheckpoint
from model.user.source import recognised

MOST_CHARACTERS = 4_000
# By the profile `nightly` 100,000, of all samples together.
CASES = 17_000 if settings().max_examples >= EXAMPLES["nightly"] else 35


def read(make: Callable[[Path], Path], expected: dict[str, Tensor], seed: int) -> dict[str, Tensor] | str:
    """The tensors of the checkpoint that becomes of a sound one; or the error."""
    with TemporaryDirectory() as folder:
        path = make(Path(folder))
        mutate(random.Random(seed), path)
        try:
            source = recognised(path, expected, "model" if path.name == "run.ckpt" else None)
            source.require_sound()
        except (ValueError, UntrustedCheckpoint) as error:
            return str(error).replace(folder, "")
        tensors = {name: tensor.clone() for name, tensor in source.state_dict().items()}
        if source.layout == "torch":
            saved = torch.load(path, weights_only=True)
            for name, tensor in source.conversion.applied(saved["model"] if source.keys else saved).items():
                torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0, equal_nan=True)
        return tensors


@pytest.mark.parametrize("sample", SAMPLES)
@settings(max_examples=CASES, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**63))
def test_a_changed_checkpoint_is_read_or_refused_in_a_line(sample: str, seed: int) -> None:
    expected = state() if sample in {"torch", "training"} else plain_state()
    found = read(SAMPLES[sample], expected, seed)
    if isinstance(found, str):
        assert found.isprintable()
        assert 0 < len(found) <= MOST_CHARACTERS
        return
    for name, tensor in expected.items():
        assert (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype)

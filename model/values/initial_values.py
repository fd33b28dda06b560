"""Initial values of tensors that a checkpoint lacks: recorded, and compared with a loaded model's."""

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.digest import bytes_of

# Values that are read together: as float64 they take 8 MiB.
BLOCK = 2**20

# Largest ratio between the largest of random values, or their root mean square, and that of others of the same origin.
# For a few values both spread further: for one value by this factor, once in a million.
FACTOR, FACTOR_OF_A_FEW = 10.0, 1e6
FEW = 8


@dataclass(frozen=True)
class InitialValues:
    """Count, range, root mean square and SHA-256 of the values of a tensor.

    `sha256` is that of the values as float64, so that it is the same in every dtype that holds them. If any value is
    not finite, the other figures mean nothing.
    """

    count: int
    low: float
    high: float
    rms: float
    sha256: str

    @classmethod
    def of(cls, tensor: Tensor) -> "InitialValues":
        """Read the values of a tensor on any device, at most `BLOCK` at a time."""
        low, high, squares, count, digest = math.inf, -math.inf, 0.0, 0, hashlib.sha256()
        for block in _blocks(tensor):
            digest.update(bytes_of(block))
            count += block.numel()
            low, high = _least(low, block.min().item()), -_least(-high, -block.max().item())
            squares += block.square().sum().item()
        return cls(count, low, high, math.sqrt(squares / count) if count else 0.0, digest.hexdigest())

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))

    @property
    def is_constant(self) -> bool:
        return self.low == self.high

    @property
    def summary(self) -> str:
        """The range and the root mean square, in a few words."""
        if not self.is_finite:
            return "values that are not finite"
        low, high = (value + 0.0 for value in (self.low, self.high))  # Not -0.
        return f"{low:.2g}" + ("" if self.is_constant else f" to {high:.2g}, {self.rms:.2g} in root mean square")

    def is_all(self, value: float, dtype: torch.dtype) -> bool:
        """Return whether all are this value, rounded to a dtype."""
        return self.low == self.high == torch.tensor(value, dtype=torch.float64).to(dtype).double().item()


def _least(one: float, other: float) -> float:
    """Return the lower one; NaN if one is."""
    return math.nan if math.isnan(one) or math.isnan(other) else min(one, other)


def _blocks(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the values as float64 on the host, of complex ones the real and imaginary parts."""
    flat = tensor.detach().flatten()
    for start in range(0, flat.numel(), BLOCK):
        held = flat[start : start + BLOCK].cpu().resolve_conj()
        yield (torch.view_as_real(held).flatten() if held.is_complex() else held).double().contiguous()


def initial_values(model: nn.Module, names: Collection[str]) -> dict[str, list[InitialValues]]:
    """Return the initial values of these tensors: by the factory, and by `reset_parameters` of their modules.

    The latter is called, and changes the model. Anything but tensors is left out.
    """
    found = {name: [InitialValues.of(tensor)] for name, tensor in _named(model, names).items()}
    with torch.random.fork_rng(devices=[]):
        for path in dict.fromkeys(name.rpartition(".")[0] for name in found):
            module = model.get_submodule(path)
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            with suppress(Exception):  # Whatever a module of the user's raises: no load can use it then.
                if callable(reset):
                    reset()
    for name, tensor in _named(model, names).items():
        if (again := InitialValues.of(tensor)) not in found[name]:
            found[name].append(again)
    return found


def _named(model: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    state_dict = model.state_dict()
    return {name: state_dict[name] for name in names if isinstance(state_dict[name], Tensor)}


def uninitialised(model: nn.Module, known: Mapping[str, Sequence[InitialValues]]) -> Iterator[tuple[str, str]]:
    """Yield names of tensors of a loaded model that do not have initial values, and the reason for each."""
    for name, tensor in _named(model, known).items():
        if wrong := _unlike(InitialValues.of(tensor), known[name], tensor.dtype):
            yield name, f"is not in the checkpoint, and was not initialised: it {wrong}"


def _unlike(found: InitialValues, known: Sequence[InitialValues], dtype: torch.dtype) -> str | None:
    """Return the reason why values are neither known initial values nor random ones like those; None if they are."""
    if found.count == 0 or found.sha256 in {one.sha256 for one in known}:
        return None
    finite = [one for one in known if one.is_finite]
    if found.is_finite and any(one.is_constant and found.is_all(one.low, dtype) for one in finite):
        return None
    # A single value may be random: another model may have another one.
    random = [one for one in finite if not one.is_constant or (one.count == 1 and one.low)]
    if found.is_finite and random and _is_like(found, random):
        return None
    return (
        f"has {found.summary}, where the model starts with {' or '.join(dict.fromkeys(one.summary for one in known))}"
    )


def _is_like(found: InitialValues, random: Sequence[InitialValues]) -> bool:
    """Return whether values can be random ones of the same origin as others."""
    factor = FACTOR if found.count >= FEW else FACTOR_OF_A_FEW
    return (
        (found.count == 1 or not found.is_constant)
        and found.largest <= factor * max(one.largest for one in random)
        and found.rms * factor >= min(one.rms for one in random)
    )

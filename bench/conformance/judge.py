"""What becomes of one specimen: saved, loaded twice, compared, stepped by optimizers, and compared again."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from bench.conformance.comparison import Difference, differences
from bench.conformance.poison import poisoned
from bench.conformance.real_models import RealModel
from bench.conformance.specimens import Specimen, Transformer
from bench.strategies import Load
from model.gpt2 import first_logits
from model.layouts import LAYOUTS, save_plain
from model.verify import WrongModel, check_logits, difference

# What SGD has kernels for.
STEPPED = {torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.complex128}


class Outcome(StrEnum):
    PASSED = "passed"
    REFUSED = "refused"
    WRONG = "WRONG"


@dataclass(frozen=True)
class Verdict:
    """`why`: the error of a refusal, or what is wrong, a line each; `checks`: which of them found it.

    `named`: whether an error names a tensor, or other state, that it is about.
    """

    outcome: Outcome
    why: str = ""
    checks: tuple[str, ...] = ()
    named: bool = True


@dataclass(frozen=True)
class Loaded:
    """What a load gave, and the optimizer that was made where the model was built: before it was loaded."""

    model: nn.Module
    optimizer: Optimizer | None


def judge(
    load: Load, layout: str, specimen: Specimen | RealModel, device: torch.device, *, fits: bool = True
) -> Verdict:
    """Whether `load` hands back the model that was saved, or refuses to; it has to refuse what does not fit."""
    with TemporaryDirectory(prefix="specimen-") as folder:
        try:
            LAYOUTS[layout].save(specimen.state_dict(specimen.saved()), Path(folder), save_plain)
            path = Path(folder) / LAYOUTS[layout].entrance
            written = _digest(Path(folder))
            with poisoned():
                first, second = (_loaded(load, specimen.build, path, device) for _ in range(2))
        except Exception as error:  # noqa: BLE001 - whatever a loader raises, it has refused.
            said = f"{type(error).__name__}: {' '.join(str(error).split())}".replace(f"{folder}/", "")
            return Verdict(Outcome.REFUSED, said, named=any(_name_in(said, name) for name in specimen.suspects()))
        if not fits:
            return Verdict(Outcome.WRONG, "was loaded without a word", ("fit",))
        found = list(_wrong(specimen, first, second, device))
        if _digest(Path(folder)) != written:
            found.append(Difference("checkpoint", "", "the checkpoint changes with the model that was loaded from it"))
    if not found:
        return Verdict(Outcome.PASSED)
    return Verdict(Outcome.WRONG, "\n".join(map(str, found)), tuple(dict.fromkeys(d.check for d in found)))


def _name_in(said: str, name: str) -> bool:
    """Whether an error names a tensor, as it is, as Python writes it, or as the name of a file."""
    return name in said or repr(name)[1:-1] in said or quote(name, safe="") in said


def _loaded(load: Load, build: Callable[[], nn.Module], path: Path, device: torch.device) -> Loaded:
    optimizers: list[Optimizer | None] = []

    def build_with_optimizer() -> nn.Module:
        model = build()
        optimizers.append(_optimizer(model))
        return model

    model = load(build_with_optimizer, path, device)
    return Loaded(model, optimizers[-1])


def _wrong(specimen: Specimen | RealModel, first: Loaded, second: Loaded, device: torch.device) -> Iterator[Difference]:
    """Everything that is wrong with two loads of one checkpoint; what is wrong already is not used any further."""
    saved = specimen.saved()
    if found := differences(saved, first.model, device) or differences(saved, second.model, device):
        yield from found
        return

    # An optimizer steps the model, whether it was made before the load or after it: a tied tensor once.
    stepped = specimen.saved()
    for optimizer in (first.optimizer, _optimizer(first.model)):
        _step(stepped, _optimizer(stepped))
        _step(first.model, optimizer)
        if found := differences(stepped, first.model, device, _difference_in_numbers):
            yield from (replace(d, check="optimizer", what=f"{d.what} (stepped by an optimizer)") for d in found)
            return
    for found_later in differences(saved, second.model, device):
        yield replace(found_later, check="independence", what=f"{found_later.what} (another load was stepped)")
    yield from _in_forward(specimen, saved, second.model)


def _optimizer(model: nn.Module) -> Optimizer | None:
    parameters = list(model.parameters())
    return SGD(parameters, lr=1.0) if parameters else None


def _step(model: nn.Module, optimizer: Optimizer | None) -> None:
    trained = [p for p in model.parameters() if p.requires_grad and p.dtype in STEPPED]
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    if optimizer is not None:
        optimizer.step()
    for parameter in trained:
        parameter.grad = None


def _difference_in_numbers(found: Tensor, expected: Tensor) -> str | None:
    """The same as a difference in bits, but that every NaN which was calculated is like any other."""
    if found.dtype not in STEPPED or found.shape != expected.shape or found.dtype != expected.dtype:
        return difference(found, expected)
    found = found.detach().cpu()
    no_number = found.isnan() & expected.isnan()
    return difference(found.masked_fill(no_number, 0), expected.detach().masked_fill(no_number, 0))


def _in_forward(specimen: Specimen | RealModel, saved: nn.Module, loaded: nn.Module) -> Iterator[Difference]:
    """Whether two models that have the same tensors compute the same."""
    if isinstance(specimen, Transformer):
        try:
            check_logits(first_logits(loaded).cpu(), first_logits(saved))
        except WrongModel as error:
            yield Difference("logits", "", str(error))
    elif isinstance(specimen, RealModel):
        try:
            for found, expected in zip(specimen.outputs(loaded), specimen.outputs(saved), strict=True):
                check_logits(found.cpu(), expected)
        except WrongModel as error:
            yield Difference("logits", "", str(error))
    elif loaded() != saved():
        yield Difference("logits", "", "computes something else")


def _digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

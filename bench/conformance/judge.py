"""What becomes of one specimen: saved, loaded twice, compared, stepped by optimizers, and compared again."""

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from bench.conformance.comparison import Difference, differences
from bench.conformance.own_model import OwnModel
from bench.conformance.poison import poisoned
from bench.conformance.pretrained import Pretrained
from bench.conformance.specimens import Specimen, Transformer
from bench.strategies import Load
from model.bits import difference
from model.foreign import ALL_LAYOUTS
from model.gpt2 import first_logits
from model.layouts import save_plain
from model.verify import WrongModel, check_logits

# Of one property each, where a loader is judged by them one by one: that an optimizer made before the load steps the
# model, that one made after it does, and that what shares no memory does not come to.
UNHEEDABLE = {"optimizer", "training", "memory"}

# What SGD has kernels for.
STEPPED = {torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.complex128}


class Outcome(StrEnum):
    PASSED = "passed"
    REFUSED = "refused"
    WRONG = "WRONG"
    # Only where a loader is tried in a process of its own.
    DIED = "DIED"


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


def judge(  # noqa: PLR0913 - what is judged, and how
    load: Load,
    layout: str,
    specimen: Specimen,
    device: torch.device,
    *,
    fits: bool = True,
    unheeded: Collection[str] = (),
    once: bool = False,
) -> Verdict:
    """Whether `load` hands back the model that was saved, or refuses to; it has to refuse what does not fit.

    Of the checks of `UNHEEDABLE`, some may be left out. `once`: it is loaded once and compared, not stepped by
    optimizers, nor held against a second load.
    """
    with TemporaryDirectory(prefix="specimen-") as folder:
        try:
            saved = specimen.saved()
            ALL_LAYOUTS[layout].save_of(saved, specimen.state_dict(saved), Path(folder), save_plain)
            path = Path(folder) / ALL_LAYOUTS[layout].entrance
            written = _digest(Path(folder))
            with poisoned():
                first = _loaded(load, specimen.build, path, device)
                second = first if once else _loaded(load, specimen.build, path, device)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a loader raises, it has refused.
            said = f"{type(error).__name__}: {' '.join(str(error).split())}".replace(f"{folder}/", "")
            return Verdict(Outcome.REFUSED, said, named=any(_name_in(said, name) for name in specimen.suspects()))
        if not fits:
            return Verdict(Outcome.WRONG, "was loaded without an error", ("fit",))
        found = list(_wrong(specimen, saved, first, second, device, unheeded))
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


def _wrong(  # noqa: PLR0913, PLR0917 - what was saved, what was loaded, and how they are compared
    specimen: Specimen,
    saved: nn.Module,
    first: Loaded,
    second: Loaded,
    device: torch.device,
    unheeded: Collection[str],
) -> Iterator[Difference]:
    """Everything that is wrong with two loads of one checkpoint; what is wrong already is not used any further."""
    for loaded in dict.fromkeys((first, second)):
        found = [one for one in differences(saved, loaded.model, device) if one.check not in unheeded]
        if found:
            yield from found
            return
    if first is not second:
        yield from _wrong_when_stepped(specimen.saved(), first, device, unheeded)
        for found_later in differences(saved, second.model, device):
            if found_later.check not in unheeded:
                yield replace(found_later, check="independence", what=f"{found_later.what} (another load was stepped)")
    yield from _in_forward(specimen, saved, second.model)


def _wrong_when_stepped(
    stepped: nn.Module, first: Loaded, device: torch.device, unheeded: Collection[str]
) -> Iterator[Difference]:
    """Step a load, and a copy of what was saved: what differs then.

    An optimizer steps the model, whether it was made before the load or after it: a tied tensor once.
    """
    optimizers = {"optimizer": first.optimizer, "training": _optimizer(first.model)}
    for optimizer in (optimizer for check, optimizer in optimizers.items() if check not in unheeded):
        _step(stepped, _optimizer(stepped))
        _step(first.model, optimizer)
        unlike = differences(stepped, first.model, device, _difference_in_numbers)
        if found := [one for one in unlike if one.check not in unheeded]:
            yield from (replace(d, check="optimizer", what=f"{d.what} (stepped by an optimizer)") for d in found)
            return


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


def _in_forward(specimen: Specimen, saved: nn.Module, loaded: nn.Module) -> Iterator[Difference]:
    """Whether two models that have the same tensors compute the same."""
    if isinstance(specimen, Transformer):
        try:
            check_logits(first_logits(loaded).cpu(), first_logits(saved))
        except WrongModel as error:
            yield Difference("logits", "", str(error))
    elif isinstance(specimen, OwnModel):
        if differing := specimen.own.answers(saved).difference(specimen.outputs(loaded)):
            yield Difference("logits", "", differing)
    elif isinstance(specimen, Pretrained):
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

"""Judgement of a loader on one specimen: saved, loaded twice, compared, stepped by optimizers, compared again."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from bench.conformance.model_differences import Differ, ModelDifference, differences
from bench.conformance.own_model import OwnModel
from bench.conformance.poison import poisoned
from bench.conformance.pretrained_models import Pretrained
from bench.conformance.specimens import Specimen, Transformer
from bench.strategies import Load
from model.gpt2 import first_logits
from model.layouts.files import save_plain
from model.layouts.foreign import ALL_LAYOUTS
from model.run_folder import run_folder
from model.user.user_model import UserModel
from model.values.bits import difference, difference_in_kind, same_value
from model.values.initial_values import InitialValues, uninitialised
from model.values.outputs import difference_in_outputs

# Checks that count in one column only, where a loader is not the suite's own: that an optimizer made before the load
# steps the model, that one made after it does, and that what shares no memory does not come to.
IGNORABLE_CHECKS = {"optimizer": "optimizer", "training": "training", "memory": "memory"}
# The same of a loader of the user's, which may load to answer prompts only: it freezes weights, keeps the strides of
# the file, or gives tied names two tensors in one memory.
OWN_IGNORABLE_CHECKS = IGNORABLE_CHECKS | {"requires_grad": "frozen", "strides": "strides", "ties": "ties"}

# A loader that builds a model of its own cannot be tried with others.
BUILDS_ITS_OWN = "never calls build(): it can load no model but its own"

# What SGD has kernels for.
STEPPED = {torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.complex128}


class CellStatus(StrEnum):
    PASSED = "passed"
    REFUSED = "refused"
    WRONG = "WRONG"
    # Only where a loader is tried in a process of its own.
    DIED = "DIED"
    # Either of these two, where the user has named the property with `--tolerate`.
    TOLERATED = "tolerated"


@dataclass(frozen=True)
class Judgement:
    """`why`: the error of a refusal, or what is wrong, a line each; `checks`: which of them found it.

    `named`: whether an error names a tensor, or other state, that it is about.
    """

    outcome: CellStatus
    why: str = ""
    checks: tuple[str, ...] = ()
    named: bool = True


class BuildUnused(Exception):
    """A load has not called the function that builds the model."""


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model, and the optimizer that was made where the model was built: before it was loaded."""

    model: nn.Module
    optimizer: Optimizer | None


def judge(  # noqa: PLR0913 - what is judged, and how
    load: Load,
    layout: str,
    specimen: Specimen,
    device: torch.device,
    *,
    fits: bool = True,
    ignored: Collection[str] = (),
    once: bool = False,
) -> Judgement:
    """Judge whether `load` hands back the saved model, or refuses to; it has to refuse a checkpoint that does not fit.

    Of the checks of `IGNORABLE_CHECKS`, some may be left out. `once`: it is loaded once and compared, not stepped by
    optimizers, nor held against a second load.
    """
    with TemporaryDirectory(prefix="specimen-", dir=run_folder()) as folder:
        entrance = Path(folder, ALL_LAYOUTS[layout].entrance)
        try:
            saved = specimen.saved()
            ALL_LAYOUTS[layout].save_of(saved, specimen.state_dict(saved), Path(folder), save_plain)
            saved = _as_loaded(specimen, saved)
        except Exception as error:  # noqa: BLE001 - a format may hold less than a model has.
            return _refusal(error, specimen, entrance)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return judge_file(load, specimen, saved, entrance, files, device, fits=fits, ignored=ignored, once=once)


def judge_file(  # noqa: PLR0913, PLR0917 - what is judged, and how
    load: Load,
    specimen: Specimen,
    saved: nn.Module,
    path: Path,
    files: Sequence[Path],
    device: torch.device,
    *,
    fits: bool = True,
    ignored: Collection[str] = (),
    once: bool = False,
) -> Judgement:
    """Judge a load of `saved`, as it has to come back, which was saved at `path` in these files."""
    try:
        written = _digest(files)
        with poisoned():
            first = _load_with_optimizer(load, specimen, path, device)
            second = first if once else _load_with_optimizer(load, specimen, path, device)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a loader raises, it has refused.
        return _refusal(error, specimen, path)
    if not fits:
        return Judgement(CellStatus.WRONG, "was loaded without an error", ("fit",))
    found = list(_wrong(specimen, saved, first, second, device, ignored))
    if _digest(files) != written:
        found.append(ModelDifference("checkpoint", "", "the checkpoint changes with the model that was loaded from it"))
    if not found:
        return Judgement(CellStatus.PASSED)
    return Judgement(CellStatus.WRONG, "\n".join(map(str, found)), tuple(dict.fromkeys(d.check for d in found)))


def judge_own(load: Load, own: UserModel, path: Path, files: Sequence[Path], device: torch.device) -> Judgement:
    """Judge a loader of the user's on the user's model, without the checks that count in one column only."""
    specimen = OwnModel(own, by_own=True)
    try:
        saved = _as_loaded(specimen, specimen.saved())
    except ValueError as error:
        return _refusal(error, specimen, path)
    return judge_file(load, specimen, saved, path, files, device, ignored=OWN_IGNORABLE_CHECKS)


def _refusal(error: BaseException, specimen: Specimen, path: Path) -> Judgement:
    message = f"{type(error).__name__}: {' '.join(str(error).split())}".replace(f"{path.parent}/", "")
    return Judgement(CellStatus.REFUSED, message, named=any(_name_in(message, name) for name in specimen.suspects()))


def _name_in(message: str, name: str) -> bool:
    """Tell whether an error names a tensor, as it is, as Python writes it, or as the name of a file."""
    return name in message or repr(name)[1:-1] in message or quote(name, safe="") in message


def _load_with_optimizer(load: Load, specimen: Specimen, path: Path, device: torch.device) -> LoadedModel:
    optimizers: list[Optimizer | None] = []

    def build_with_optimizer() -> nn.Module:
        model = specimen.build()
        optimizers.append(_optimizer(model))
        return model

    model = load(build_with_optimizer, path, device)
    if not optimizers and not isinstance(specimen, OwnModel):
        raise BuildUnused(BUILDS_ITS_OWN)
    return LoadedModel(model, optimizers[-1] if optimizers else None)


def _as_loaded(specimen: Specimen, saved: nn.Module) -> nn.Module:
    """Return the saved model as a load has to give it."""
    return specimen.as_loaded(saved) if isinstance(specimen, OwnModel) else saved


def _wrong(  # noqa: PLR0913, PLR0917 - what was saved, what was loaded, and how they are compared
    specimen: Specimen,
    saved: nn.Module,
    first: LoadedModel,
    second: LoadedModel,
    device: torch.device,
    ignored: Collection[str],
) -> Iterator[ModelDifference]:
    """Yield everything that is wrong with two loads of one checkpoint; a wrong load is not used any further."""
    unsteady = specimen.unsteady(saved) if isinstance(specimen, OwnModel) else set()
    also_right = specimen.cast_too(saved) if isinstance(specimen, OwnModel) else {}
    buffers = dict(first.model.named_buffers(remove_duplicate=False))
    cast_too = {name for name, one in also_right.items() if name in buffers and same_value(buffers[name].cpu(), one)}

    def unlike(expected: nn.Module, found: nn.Module, differ: Differ = difference) -> list[ModelDifference]:
        every = differences(expected, found, device, differ)
        return [one for one in every if one.check not in ignored and one.name not in {*unsteady, *cast_too}]

    starts = specimen.initial_values() if isinstance(specimen, OwnModel) else {}
    for loaded in dict.fromkeys((first, second)):
        if found := [*_start_alike(saved, loaded.model, starts)] or unlike(saved, loaded.model):
            yield from found
            return
    if first is not second:
        # What another load started with was other values.
        twin = _twin(specimen, saved)
        list(_start_alike(twin, first.model, starts))
        yield from _wrong_when_stepped(twin, first, unlike, ignored)
        for found_later in unlike(saved, second.model):
            yield replace(found_later, check="independence", what=f"{found_later.what} (another load was stepped)")
    # What a model computes with tensors that are others each time tells nothing of a load.
    if not unsteady and not cast_too:
        yield from _in_forward(specimen, saved, second.model)


def _start_alike(
    saved: nn.Module, loaded: nn.Module, starts: dict[str, list[InitialValues]]
) -> Iterator[ModelDifference]:
    """Give `saved` what a load starts with, where the checkpoint has nothing: then all of it can be compared.

    Yields what is wrong with that, but for what is on meta, or of another kind: that is told by the comparison.
    """
    before, after = saved.state_dict(), loaded.state_dict()
    given = {name: after[name] for name in starts if isinstance(after.get(name), Tensor) and not after[name].is_meta}
    yield from (
        ModelDifference("values", *wrong) for wrong in uninitialised(loaded, {name: starts[name] for name in given})
    )
    for name, tensor in given.items():
        if difference_in_kind(tensor, before[name]) is None:
            before[name].copy_(tensor)


def _twin(specimen: Specimen, saved: nn.Module) -> nn.Module:
    """Return another model with the weights of `saved`: a factory of the user's may give others each time."""
    twin = _as_loaded(specimen, specimen.saved())
    twin.load_state_dict(saved.state_dict())
    return twin


def _wrong_when_stepped(
    stepped: nn.Module, first: LoadedModel, unlike: Callable[..., list[ModelDifference]], ignored: Collection[str]
) -> Iterator[ModelDifference]:
    """Step a load, and a copy of what was saved: what differs then.

    An optimizer steps the model, whether it was made before the load or after it: a tied tensor once.
    """
    optimizers = (("optimizer", "before", first.optimizer), ("training", "after", _optimizer(first.model)))
    for made, optimizer in ((made, optimizer) for check, made, optimizer in optimizers if check not in ignored):
        _step(stepped, _optimizer(stepped))
        _step(first.model, optimizer)
        if found := unlike(stepped, first.model, _difference_in_numbers):
            told = f"(stepped by an optimizer that was made {made} the load)"
            yield from (replace(one, check="optimizer", what=f"{one.what} {told}") for one in found)
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
    """Return the difference in bits, with every calculated NaN equal to any other."""
    if found.dtype not in STEPPED or found.shape != expected.shape or found.dtype != expected.dtype:
        return difference(found, expected)
    found = found.detach().cpu()
    no_number = found.isnan() & expected.isnan()
    return difference(found.masked_fill(no_number, 0), expected.detach().masked_fill(no_number, 0))


def _in_forward(specimen: Specimen, saved: nn.Module, loaded: nn.Module) -> Iterator[ModelDifference]:
    """Compare what two models compute that have the same tensors."""
    if isinstance(specimen, OwnModel):
        differing = specimen.own.reference_outputs(saved).difference(specimen.outputs(loaded))
    elif isinstance(specimen, Transformer):
        differing = difference_in_outputs([first_logits(loaded).cpu()], [first_logits(saved)])
    elif isinstance(specimen, Pretrained):
        differing = difference_in_outputs([one.cpu() for one in specimen.outputs(loaded)], specimen.outputs(saved))
    else:
        differing = _difference_in_results(loaded().detach(), saved().detach())
    if differing:
        yield ModelDifference("logits", "", differing)


def _difference_in_results(found: Tensor, expected: Tensor) -> str | None:
    """Say what differs between what two small models compute: on the CPU they compute the same bits."""
    if found.device.type != "cpu":
        return difference_in_outputs([found.cpu()], [expected])
    return None if torch.equal(found, expected) else "computes something else"


def _digest(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()

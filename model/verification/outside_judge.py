"""A loaded model judged from outside its process: by digests of its memory, held to those of what was saved.

The loader may have replaced whatever compares tensors in its own process, and it may have written to the file. The
digests were made before, of a checkpoint that was sound.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from model.checkpoints import Checkpoint
from model.examine.trust import UntrustedCheckpoint
from model.foreign import FOREIGN, Digest
from model.verification.nonpersistent import beside
from model.verification.process_memory import ProcessMemory
from model.verification.tensor_places import (
    HIDDEN,
    NO_DICT,
    NO_NAME,
    TRACE,
    TensorPlace,
    Told,
    effective_stride,
    places_of,
)

# What is wrong with a model whose process has this memory, and tells this of it, also if it is asked again; None if
# nothing is.
Judge = Callable[[ProcessMemory, Told, Callable[[], Told]], str | None]

# Why a model cannot be compared, of what is odd; see `Told`.
ODD = {
    TRACE: "a trace function was left by the loader, and could change the model while it is compared: have it unset",
    NO_DICT: "{} keeps its tensors in something else than a dict: have the loader leave it as it is built",
    NO_NAME: "{} has a name that is no plain string: have the loader leave it as it is built",
    HIDDEN: "{} is hidden by an attribute of its name, which the model uses",
}

# After a load that left something running, its tensors are looked at again.
LATER_SECONDS = 1.5


def judge_of(checkpoint: Checkpoint, device: torch.device) -> Judge | None:
    """Return what judges loads of a checkpoint; None where only the process of a load can: on no CPU and no GPU.

    And where the state dict of a model as it is built is not what is registered, or TorchScript makes it: it does not
    tell which tensor has a name.
    """
    if device.type not in ("cpu", "cuda"):
        return None
    skeleton = checkpoint.specification.architecture.skeleton()
    made = skeleton.state_dict(keep_vars=True)
    if isinstance(skeleton, torch.jit.ScriptModule) or not _holds_what_it_has(skeleton, made):
        return None
    return partial(_judge, checkpoint, device, _Made.of(made))


def _holds_what_it_has(skeleton: nn.Module, made: Mapping[str, object]) -> bool:
    """Return whether a state dict has the tensors that are registered, by their names, and no others."""
    places, odd = places_of(skeleton)
    parameters = skeleton.named_parameters(remove_duplicate=False)
    registered = dict([*parameters, *skeleton.named_buffers(remove_duplicate=False)])
    tensors = {name: value for name, value in made.items() if isinstance(value, Tensor)}
    names = {place.name for place in places if place.held in ("parameter", "buffer")}
    return (
        not odd
        and not any(place.hidden for place in places)
        and names == tensors.keys()
        and all(value is registered[name] for name, value in tensors.items())
    )


@dataclass(frozen=True)
class _Made:
    """A model as its factory makes it: strides, and the first of the names that mean a tensor."""

    strides: dict[str, tuple[int, ...]]
    firsts: dict[str, str]

    @classmethod
    def of(cls, state_dict: dict[str, Tensor]) -> "_Made":
        tensors = {name: value for name, value in state_dict.items() if isinstance(value, Tensor)}
        first: dict[int, str] = {}
        return cls(
            {name: tensor.stride() for name, tensor in tensors.items()},
            {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()},
        )


def _judge(  # noqa: PLR0913, PLR0917 - what is known beforehand, and what the process of a load shows
    checkpoint: Checkpoint,
    device: torch.device,
    made: _Made,
    memory: ProcessMemory,
    told: Told,
    again: Callable[[], Told],
) -> str | None:
    try:
        checkpoint.require_unchanged()
        digests = checkpoint.digests()
        wrong = _wrong(checkpoint, digests, device, made, memory, told)
        if wrong is None and _may_change(memory, told, digests):
            time.sleep(LATER_SECONDS)
            if later := _wrong(checkpoint, digests, device, made, memory, again()):
                wrong = (
                    f"{later}: it was right {LATER_SECONDS} s before, and something that the loader left wrote to it"
                )
    except UntrustedCheckpoint as error:
        return f"UntrustedCheckpoint: {error}"
    return f"WrongModel: {wrong}" if wrong else None


def _wrong(  # noqa: PLR0913, PLR0917 - the same
    checkpoint: Checkpoint,
    digests: dict[str, Digest],
    device: torch.device,
    made: _Made,
    memory: ProcessMemory,
    told: Told,
) -> str | None:
    for name, why in told.odd:
        return ODD[why].format(name or "the model")
    places = {place.name: place for place in told.places}
    if len(places) < len(told.places):
        twice = next(name for name, count in Counter(place.name for place in told.places).items() if count > 1)
        return f"{twice} is the name of several tensors: have the loader leave the model as it is built"
    dense = checkpoint.specification.layout.startswith("safetensors") or checkpoint.specification.layout in FOREIGN
    for place in told.places:
        if place.held != "output" and (what := _misplaced(place, device)):
            return f"{place.name} {what}"
    for name, digest in digests.items():
        if name not in places:
            return f"{name} is in the checkpoint, but not in the model"
        if what := _unlike(places[name], digest, made.strides.get(name), dense=dense):
            return f"{name} {what}"
    return (
        _wrong_ties(places, digests, made, {*checkpoint.specification.missing})
        or _wrong_values(memory, places, digests)
        or _wrong_beside(checkpoint, memory, places)
        or _wrong_outputs(checkpoint, memory, told)
    )


def _misplaced(place: TensorPlace, device: torch.device) -> str | None:
    if place.hidden:
        return ODD[HIDDEN].format("").strip()
    # A device without an index is any of its kind.
    right = place.device == repr(device) or (device.index is None and place.device.startswith(repr(device)[:-1]))
    return None if right else f"is on {place.device}, not on {device!r}"


def _unlike(place: TensorPlace, digest: Digest, made: tuple[int, ...] | None, *, dense: bool) -> str | None:
    """Say what is wrong with the dtype, the shape or the strides of a tensor.

    It may lie as in the checkpoint, or as the model is built; `dense`: or one value after the other, as there is no
    other way to save it.
    """
    if place.dtype != str(digest.dtype):
        return f"is {place.dtype}, saved as {digest.dtype}"
    if place.shape != digest.shape:
        return f"has shape {list(place.shape)}, saved as {list(digest.shape)}"
    right = [effective_stride(place.shape, one) for one in (digest.stride, made) if one is not None]
    if place.dense_stride in right or (dense and place.is_contiguous):
        return None
    return f"has strides {place.stride}, saved with {digest.stride}"


def _wrong_ties(
    places: dict[str, TensorPlace], digests: dict[str, Digest], made: _Made, missing: set[str]
) -> str | None:
    """Say which tensor is not one with another that it was one with, or has become so, or is in no checkpoint."""
    saved = {name: place for name, place in places.items() if place.held in ("parameter", "buffer") and place.count}
    first: dict[object, str] = {}
    firsts = {
        name: first.setdefault((place.address, place.dtype, place.shape, place.stride), name)
        for name, place in saved.items()
    }
    for name in (name for name in digests if name in firsts):
        was, now = digests[name].first, firsts[name]
        if was in firsts and now != firsts[was]:
            return f"{name} was one tensor with {was}, and is by itself"
        if now != name and now in digests and digests[now].first != was and not _are_made_one(made, name, now):
            return f"{name} is one tensor with {now}, which it was not"
    held = {firsts[name] for name in (*digests, *missing) if name in firsts}
    unexpected = [name for name, one in firsts.items() if one not in held]
    return f"{min(unexpected)} is in the model, but not in the checkpoint" if unexpected else None


def _are_made_one(made: _Made, one: str, other: str) -> bool:
    return made.firsts.get(one, one) == made.firsts.get(other, other)


def _wrong_values(memory: ProcessMemory, places: dict[str, TensorPlace], digests: dict[str, Digest]) -> str | None:
    # Of tied tensors one is read.
    once: dict[object, list[str]] = {}
    for name, digest in digests.items():
        place = places[name]
        once.setdefault((place.address, place.dtype, place.shape, place.stride, digest.sha256), []).append(name)
    names = [same[0] for same in once.values()]
    for name, found in zip(names, memory.digests([places[name] for name in names]), strict=True):
        if found is None:
            return f"{name} has no memory that can be read"
        if found != digests[name].sha256:
            return f"{name} differs from what was saved, by its SHA-256"
    return None


def _wrong_beside(checkpoint: Checkpoint, memory: ProcessMemory, places: dict[str, TensorPlace]) -> str | None:
    """Say which buffer that no checkpoint has is not as the model is built; see `nonpersistent.wrong_beside`."""
    known = checkpoint.buffers()
    wrong = [
        name
        for name, right in known.items()
        if name not in places or memory.sha256(places[name]) not in {one.sha256 for one in right}
    ]
    built = beside(checkpoint.specification.build()) if wrong else {}
    name = next((name for name in wrong if name in built and Digest.of(built[name]) in known[name]), None)
    return f"{name} is in no checkpoint, and has other values than the model is built with" if name else None


def _wrong_outputs(checkpoint: Checkpoint, memory: ProcessMemory, told: Told) -> str | None:
    """Say what is wrong with the outputs that a process tells of; it tells of none where none are kept."""
    outputs = [memory.tensor(place) for place in told.places if place.held == "output"]
    return checkpoint.answers().difference([one for one in outputs if one is not None]) if outputs else None


def _may_change(memory: ProcessMemory, told: Told, digests: Iterable[str]) -> bool:
    """Return whether something still runs that could write to the tensors."""
    places = {place.name: place for place in told.places}
    return bool(told.running) or memory.has_children() or memory.shares([places[name] for name in digests])

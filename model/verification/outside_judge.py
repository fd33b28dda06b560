"""Check of a loaded model from another process: it compares digests of its memory with the checkpoint's.

A loader can replace the functions that compare tensors in its own process, and can write to the file. So the digests
were computed when the checkpoint was made.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from model.checkpoints.checkpoint import Checkpoint
from model.digest import TensorDigest
from model.examine.trust import UntrustedCheckpoint
from model.layouts.foreign import FOREIGN
from model.values.nonpersistent import first_wrong
from model.verification.process_memory import ProcessMemory
from model.verification.tensor_places import (
    HIDDEN,
    NO_DICT,
    NO_NAME,
    TRACE,
    PlacesStatement,
    TensorPlace,
    effective_stride,
    places_of,
)

# Returns the fault of a model, or None: from the memory of its process, the statement of its tensors' places, and a
# function that asks for another statement.
Judge = Callable[[ProcessMemory, PlacesStatement, Callable[[], PlacesStatement]], str | None]

# Reasons why a model cannot be compared; see `PlacesStatement`.
ODD = {
    TRACE: "a trace function was left by the loader, and could change the model while it is compared: have it unset",
    NO_DICT: "{} keeps its tensors in something else than a dict: have the loader leave it as it is built",
    NO_NAME: "{} has a name that is no plain string: have the loader leave it as it is built",
    HIDDEN: "{} is hidden by an attribute of its name, which the model uses",
}

# After this time, the tensors are read again if the load left something running.
LATER_SECONDS = 1.5


def judge_of(checkpoint: Checkpoint, device: torch.device) -> Judge | None:
    """Return the judge of loads of a checkpoint; None if only the process of a load can check the model.

    That is so on a device other than CPU and GPU, for TorchScript, and for a model whose state dict, as it is built, is
    not what it registers: then names do not tell the tensors.
    """
    if device.type not in ("cpu", "cuda"):
        return None
    skeleton = checkpoint.specification.architecture.skeleton()
    made = skeleton.state_dict(keep_vars=True)
    if isinstance(skeleton, torch.jit.ScriptModule) or not _registers_its_state(skeleton, made):
        return None
    return partial(_judge, checkpoint, device, _BuiltState.of(made))


def _registers_its_state(skeleton: nn.Module, made: Mapping[str, object]) -> bool:
    """Return whether a state dict has the tensors that the model registers, by their names, and no others."""
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
class _BuiltState:
    """A new model: the strides of each tensor, and the first of its names."""

    strides: dict[str, tuple[int, ...]]
    firsts: dict[str, str]

    @classmethod
    def of(cls, state_dict: dict[str, Tensor]) -> "_BuiltState":
        tensors = {name: value for name, value in state_dict.items() if isinstance(value, Tensor)}
        first: dict[int, str] = {}
        return cls(
            {name: tensor.stride() for name, tensor in tensors.items()},
            {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()},
        )


def _judge(  # noqa: PLR0913, PLR0917 - three bound beforehand, three of a load
    checkpoint: Checkpoint,
    device: torch.device,
    made: _BuiltState,
    memory: ProcessMemory,
    statement: PlacesStatement,
    again: Callable[[], PlacesStatement],
) -> str | None:
    try:
        checkpoint.require_unchanged()
        digests = checkpoint.digests()
        wrong = _wrong(checkpoint, digests, device, made, memory, statement)
        if wrong is None and _may_change(memory, statement, digests):
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
    digests: dict[str, TensorDigest],
    device: torch.device,
    made: _BuiltState,
    memory: ProcessMemory,
    statement: PlacesStatement,
) -> str | None:
    for name, why in statement.odd:
        return ODD[why].format(name or "the model")
    places = {place.name: place for place in statement.places}
    if len(places) < len(statement.places):
        twice = next(name for name, count in Counter(place.name for place in statement.places).items() if count > 1)
        return f"{twice} is the name of several tensors: have the loader leave the model as it is built"
    dense = checkpoint.specification.layout.startswith("safetensors") or checkpoint.specification.layout in FOREIGN
    for place in statement.places:
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
        or _wrong_nonpersistent(checkpoint, memory, places)
        or _wrong_outputs(checkpoint, memory, statement)
    )


def _misplaced(place: TensorPlace, device: torch.device) -> str | None:
    if place.hidden:
        return ODD[HIDDEN].format("").strip()
    # A device without an index is any of its kind.
    right = place.device == repr(device) or (device.index is None and place.device.startswith(repr(device)[:-1]))
    return None if right else f"is on {place.device}, not on {device!r}"


def _unlike(place: TensorPlace, digest: TensorDigest, made: tuple[int, ...] | None, *, dense: bool) -> str | None:
    """Return the difference in dtype, shape or strides of a tensor; None if there is none.

    The strides may be those of the checkpoint or of a new model; `dense`: or contiguous ones, as the layout saves no
    others.
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
    places: dict[str, TensorPlace], digests: dict[str, TensorDigest], made: _BuiltState, missing: set[str]
) -> str | None:
    """Return the first tie that was lost or added, or a tensor that is in no checkpoint; None if there is neither."""
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


def _are_made_one(made: _BuiltState, one: str, other: str) -> bool:
    return made.firsts.get(one, one) == made.firsts.get(other, other)


def _wrong_values(
    memory: ProcessMemory, places: dict[str, TensorPlace], digests: dict[str, TensorDigest]
) -> str | None:
    # Tied tensors are read once.
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


def _wrong_nonpersistent(checkpoint: Checkpoint, memory: ProcessMemory, places: dict[str, TensorPlace]) -> str | None:
    """Return the fault of a non-persistent buffer; see `nonpersistent.wrong_nonpersistent`."""
    known = checkpoint.nonpersistent_digests()
    wrong = [
        name
        for name, right in known.items()
        if name not in places or memory.sha256(places[name]) not in {one.sha256 for one in right}
    ]
    name = first_wrong(wrong, known, checkpoint.specification.build)
    return f"{name} is in no checkpoint, and has other values than the model is built with" if name else None


def _wrong_outputs(checkpoint: Checkpoint, memory: ProcessMemory, statement: PlacesStatement) -> str | None:
    """Return the difference of the outputs in a statement; it has none if no outputs are kept."""
    outputs = [memory.tensor(place) for place in statement.places if place.held == "output"]
    return checkpoint.reference_outputs().difference([one for one in outputs if one is not None]) if outputs else None


def _may_change(memory: ProcessMemory, statement: PlacesStatement, digests: Iterable[str]) -> bool:
    """Return whether something that could write to the tensors still runs."""
    places = {place.name: place for place in statement.places}
    return bool(statement.running) or memory.has_children() or memory.shares([places[name] for name in digests])

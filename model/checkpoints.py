"""A checkpoint of a random GPT-2: what identifies it, how it is made, and whether one found on disk still fits."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.serialization import config as serialization

from model.architecture import DTYPES, Architecture, RandomGPT2
from model.casting import Dtypes, cast, retyped
from model.file_identity import FileIdentity, require_unchanged
from model.footprint import Footprint, SavedFootprint, footprint, saved_footprint
from model.foreign import ALL_LAYOUTS, DIGESTS, FOREIGN, SPARSE, Digest, digests
from model.layouts import LAYOUTS, Entry, Raw, save_digested, save_sparse
from model.pretrained import PretrainedGPT2
from model.user.initial_values import InitialValues, starts
from model.user.name_globs import without
from model.user.source import Source
from model.user.user_model import UserModel
from model.verification.nonpersistent import known_beside
from model.verification.outputs import Answers, Compared
from model.weights import Progress

MANIFEST = "manifest.json"
LOGITS = "logits.pt"
# What is in a checkpoint's folder and no load reads.
BESIDE = (MANIFEST, LOGITS, DIGESTS)

# Zip directories, pickles and logits, beside the tensors' own bytes.
OVERHEAD_BYTES_PER_TENSOR = 4096


# The suite's own GPT-2, and those of libraries that load no other models than theirs.
FAMILIES: dict[str, Callable[[str, str], Architecture]] = {"": RandomGPT2, "transformers": PretrainedGPT2}


@dataclass(frozen=True)
class Specification:
    """Which checkpoint: a size of `SIZES`, a dtype of `DTYPES`, a layout of `ALL_LAYOUTS`; of a model of the user's."""

    size: str
    dtype: str
    layout: str
    own: UserModel | None = None
    # Whose GPT-2 it is, of `FAMILIES`.
    family: str = ""
    # The dtype that floating-point weights end in, of `DTYPES`; "": the one that they are saved in.
    cast: str = ""
    # Whether a copy is made of what lies where the user has it: there are loaders that would not find it there.
    copied: bool = False

    @property
    def architecture(self) -> Architecture:
        return self.own or FAMILIES[self.family](self.size, self.dtype)

    @property
    def name(self) -> str:
        to = f"to-{self.cast}" if self.cast else ""
        if self.own is None:
            return "-".join(filter(None, ("gpt2", self.size, self.dtype, self.layout, self.family, to)))
        digest = hashlib.sha256(repr(replace(self.own, cast="")).encode()).hexdigest()[:8]
        return "-".join(filter(None, ("own", self.size, digest, self.layout, "copied" if self.copied else "", to)))

    def build(self) -> nn.Module:
        """A freshly initialised model of this size and dtype; a meta skeleton under `torch.device("meta")`."""
        return self.architecture.build()

    @property
    def keywords(self) -> dict[str, Any]:
        """What a load is told beside the path: the dtype that weights end in, and which names are not saved."""
        asked = {"dtype": DTYPES[self.cast] if self.cast else None, "missing": self.missing}
        return {name: value for name, value in asked.items() if value}

    @property
    def missing(self) -> tuple[str, ...]:
        """Names in the model that the checkpoint lacks."""
        return self.own.missing if self.own else ()

    @property
    def in_place(self) -> Source | None:
        """What is loaded as it lies where the user has it; None where it is made, or saved again in another layout."""
        source = self.own.source if self.own else None
        fits = source and source.is_plain and source.layout == self.layout and not self.copied
        return source if fits else None

    @property
    def weights(self) -> "Specification | None":
        """The checkpoint that has its weights, beside which it has but what the model answers when they are cast.

        None: it has its own, or the user has them.
        """
        return replace(self, cast="", own=self.own and replace(self.own, cast="")) if self._is_of_another else None

    @property
    def _is_of_another(self) -> bool:
        return bool(self.cast) and self.in_place is None

    @property
    def saved_state(self) -> dict[str, Any]:
        """The state dict that is saved, of a skeleton: without values."""
        return without(retyped(self.architecture.skeleton().state_dict(), dict(self._dtypes)), self.missing)

    @property
    def _dtypes(self) -> Dtypes:
        return self.own.fit.dtypes if self.own else ()

    @property
    def footprint(self) -> Footprint:
        """What the model takes that a load returns."""
        return footprint(self.architecture, self.cast)

    @property
    def saved(self) -> SavedFootprint:
        """What its tensors take in the checkpoint."""
        return saved_footprint(self.architecture, self._dtypes, self.missing, self.cast, self.layout, self.in_place)

    @property
    def checkpoint_bytes(self) -> int:
        return self.saved.checkpoint_bytes

    @property
    def largest_file_bytes(self) -> int:
        """What the tensors take in that file of the checkpoint which has the most."""
        return self.saved.largest_file_bytes

    @property
    def making_bytes(self) -> int:
        """What making it takes of memory: nothing where all is there, and its model is not asked anything."""
        if self.in_place and self.own and self.own.asks is None and not self.missing:
            return 0
        saved = self.saved
        return max(saved.checkpoint_bytes, self.footprint.state_bytes) + (saved.largest_bytes if self.cast else 0)

    @property
    def disk_bytes(self) -> int:
        """What the checkpoint takes on disk, at most."""
        taken = 0 if self.in_place or self._is_of_another else self.checkpoint_bytes
        return taken + (self.footprint.tensors + 64) * OVERHEAD_BYTES_PER_TENSOR

    def manifest(self) -> dict[str, Any]:
        """What identifies the content: with any other value, a checkpoint found on disk is not this one."""
        to = {"cast": self.cast} if self.cast else {}
        return self.architecture.identity() | {"schema": 2, "layout": self.layout} | to | self._written_by()

    def _written_by(self) -> dict[str, Any]:
        """What else decides how the same weights lie on disk."""
        if library := ALL_LAYOUTS[self.layout].library:
            return {"written_by": f"{library} {version(library)}"}
        return {
            "torch_format": {
                "container": "zip",
                "storage_alignment": serialization.save.storage_alignment,
                "byteorder": sys.byteorder,
            },
        }


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk that fits its specification.

    `stamps` are those of its files when they were found to be sound; without any, none is held to be changed. `beside`
    is the folder that has the weights, where another checkpoint has them; None: its own.
    """

    specification: Specification
    folder: Path
    stamps: tuple[FileIdentity, ...] = ()
    beside: Path | None = None

    @property
    def _weights(self) -> Path:
        return self.beside or self.folder

    @property
    def path(self) -> Path:
        """What a strategy is given: a file, or a folder of files."""
        if self.specification.in_place:
            return self.specification.in_place.path
        return self._weights / ALL_LAYOUTS[self.specification.layout].entrance

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that a load reads, wherever it is told of the others."""
        if self.specification.in_place:
            return self.specification.in_place.files
        files = (path for path in self._weights.rglob("*") if path.is_file())
        return tuple(sorted(path for path in files if path.name not in BESIDE))

    def require_unchanged(self) -> None:
        """Raise `UntrustedCheckpoint` for a file that is no longer the one that was found to be sound."""
        require_unchanged(self.folder, self.stamps)

    def identity(self) -> str | None:
        """The SHA-256 of what was saved, equal on all machines; None where no bytes were, or none by this suite."""
        if self.specification.in_place or not (self._weights / MANIFEST).exists():
            return None
        files = json.loads((self._weights / MANIFEST).read_bytes())["files"]
        # What a library of its own writes it need not write the same twice; nor do all processors compute the same.
        kept = {DIGESTS} if self.specification.layout in FOREIGN else files.keys() - {LOGITS, DIGESTS}
        return hashlib.sha256(json.dumps({name: files[name]["sha256"] for name in sorted(kept)}).encode()).hexdigest()

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """Every saved tensor with its name, mapped; its digest, where a library of its own has saved it."""
        if self.specification.layout in FOREIGN:
            return iter(_digests(self._weights).items())
        return LAYOUTS[self.specification.layout].read(self.path)

    def digests(self) -> dict[str, Digest]:
        """Those of every tensor that a load ends with, as it was when the checkpoint was made, or found to be sound."""
        return _digests(self.folder)

    def outputs(self) -> list[Tensor]:
        """What the model that was saved computed first, on the host: of GPT-2 logits `[1, 3, vocabulary]`."""
        saved = torch.load(self.folder / LOGITS, map_location="cpu", weights_only=True)
        return saved if isinstance(saved, list) else [saved]

    def answers(self) -> Answers:
        """The same, with what is known of them: of a model of the user's, when its checkpoint was made."""
        if self.specification.own is None:
            return Answers(self.outputs())
        known = json.loads((self.folder / MANIFEST).read_bytes())["answers"]
        return Answers(self.outputs(), Compared(known["compared"]), tuple(known["changed"]))

    def buffers(self) -> dict[str, list[Digest]]:
        """What buffers of the user's model are built with that no checkpoint has, as far as a load leaves them so."""
        if self.specification.own is None:
            return {}
        known = json.loads((self.folder / MANIFEST).read_bytes())
        left = known.get("beside", {}).keys() - set(known["answers"]["changed"])
        return {name: [Digest.from_json(one) for one in known["beside"][name]] for name in sorted(left)}

    def starts(self) -> dict[str, list[InitialValues]]:
        """What the model starts with in the tensors that the checkpoint lacks, by their names."""
        if not self.specification.missing:
            return {}
        known = json.loads((self.folder / MANIFEST).read_bytes())["starts"]
        return {name: [InitialValues(**one) for one in values] for name, values in known.items()}


def _digests(folder: Path) -> dict[str, Digest]:
    kept = json.loads((folder / DIGESTS).read_bytes())
    return {name: Digest.from_json(digest) for name, digest in kept.items()}


def make(specification: Specification, folder: Path, progress: Progress) -> None:
    """Make the model, and write its tensors, its first logits and the manifest into `folder`, which is new.

    Under a cast no tensors are written, but the first logits and the digests of the model that was cast. Digests of
    what lies where the user has it are made of the files, which were found to be sound just before.

    The manifest comes last: a folder without one is half a checkpoint. `progress` is told of about twice the
    state bytes: filled, then written.
    """
    folder.mkdir()
    own, in_place, save = specification.own, specification.in_place, partial(save_digested, progress=progress)
    if own and own.source:
        own.source.require_sound()
    files: dict[str, Entry] = {}
    answers, beside = Answers([]), {}
    if specification.making_bytes:
        model = specification.architecture.saved(progress)
        if not in_place and not specification.cast:
            state_dict = without(model.state_dict(), specification.missing)
            files |= ALL_LAYOUTS[specification.layout].save_of(model, state_dict, folder, save)
        beside = known_beside(model, DTYPES.get(specification.cast)) if own else {}
        cast(model, DTYPES.get(specification.cast))
        if not own:
            answers = Answers(specification.architecture.outputs(model))
        elif specification.cast or not own.fit.dtypes:  # In a dtype that it is not built for it need not answer.
            answers = own.answers(model)
        if specification.missing:
            answers = replace(answers, compared=Compared.IN_PART_NEW)
    read = dict(LAYOUTS[specification.layout].read(in_place.path)) if in_place else model.state_dict()
    kept = digests(without(read, specification.missing), DTYPES.get(specification.cast))
    files[DIGESTS] = save(Raw([json.dumps(kept).encode()]), folder / DIGESTS)
    files[LOGITS] = save_digested(answers.outputs if own else answers.outputs[0], folder / LOGITS, progress)
    known: dict[str, Any] = {"answers": {"compared": answers.compared, "changed": answers.changed}} if own else {}
    if own:
        known["beside"] = {name: [one.as_json() for one in right] for name, right in beside.items()}
    if specification.missing:
        found = starts(model, specification.missing)
        known["starts"] = {name: [one.as_json() for one in values] for name, values in found.items()}
    with (folder / MANIFEST).open("x") as file:
        json.dump(specification.manifest() | known | {"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def make_sparse(specification: Specification, folder: Path) -> None:
    """Write a checkpoint into `folder`, which is new, with holes for the bytes: a plan does not read them.

    It has no logits and no manifest, and takes some KB a tensor of the disk, whatever the size of the model.
    """
    folder.mkdir()
    skeleton = specification.saved_state
    save = SPARSE.get(specification.layout) or LAYOUTS[specification.layout].save
    with FakeTensorMode():
        save(_fake(skeleton), folder, save_sparse)
    if specification.layout in FOREIGN:
        kinds = {name: Digest.without_values(value) for name, value in skeleton.items() if isinstance(value, Tensor)}
        (folder / DIGESTS).write_text(
            json.dumps({name: kind.as_json() for name, kind in kinds.items()}), encoding="utf-8"
        )


def _fake(skeleton: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of a skeleton, with fake tensors on the host, which share memory as those do."""
    wholes: dict[torch.UntypedStorage, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in wholes:
            wholes[storage] = torch.empty(storage.nbytes() // tensor.element_size(), dtype=tensor.dtype)
        return wholes[storage].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    return {name: fake(value) if isinstance(value, Tensor) else value for name, value in skeleton.items()}


def misfit(specification: Specification, folder: Path) -> str | None:
    """Why what lies in `folder` is not the checkpoint that `specification` means; None where it is, to the bit."""
    try:
        return _misfit(specification, folder, json.loads((folder / MANIFEST).read_bytes()))
    except FileNotFoundError:
        return "it has no manifest: its making was interrupted"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"


def _misfit(specification: Specification, folder: Path, manifest: dict[str, Any]) -> str | None:
    if specification.own and not {"answers", "beside"} <= manifest.keys():
        return "less is known of its model than now"
    if differing := {key for key, value in specification.manifest().items() if manifest.get(key) != value}:
        return f"its {', '.join(sorted(differing))} differs"
    files = manifest["files"]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    if differing := found ^ set(files):
        return f"{min(differing)} is {'not in its manifest' if min(differing) in found else 'missing'}"
    changes = (_change(folder / relative, entry) for relative, entry in files.items())
    return next((change for change in changes if change), None)


def _change(path: Path, entry: Entry) -> str | None:
    """What differs between a file and its entry in the manifest."""
    if (size := path.stat().st_size) != entry["bytes"]:
        return f"{path.name} has {size:,} bytes, not {entry['bytes']:,}"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
            return f"{path.name} has changed since it was written"
    return None

"""Writes checkpoints: with weights, or as sparse files."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from model.architecture import DTYPES
from model.casting import cast, cast_dtypes, retyped
from model.checkpoints.manifest import DIGESTS, LOGITS, MANIFEST
from model.checkpoints.specification import Specification
from model.digest import TensorDigest, digests
from model.layouts.files import ManifestEntry, RawContent, save_digested, save_sparse
from model.layouts.foreign import ALL_LAYOUTS, FOREIGN, SPARSE
from model.layouts.layouts import LAYOUTS
from model.state_dict import without
from model.values.initial_values import initial_values
from model.values.nonpersistent import nonpersistent_digests
from model.values.outputs import Comparability, ReferenceOutputs
from model.weights import Progress


def make(specification: Specification, folder: Path, progress: Progress) -> None:
    """Make the model, and write its tensors, digests, first outputs and manifest into `folder`, which is new.

    For a cast, only digests and outputs of the cast model are written: its weights are in another checkpoint. Digests
    of a user's checkpoint that is loaded in place are made of its files, which were found to be sound just before.

    The manifest comes last: a folder without one is incomplete. `progress` gets about twice the state bytes: filled,
    then written.
    """
    folder.mkdir()
    user, in_place, save = specification.user_model, specification.in_place, partial(save_digested, progress=progress)
    if user and user.source:
        user.source.require_sound()
    files: dict[str, ManifestEntry] = {}
    reference, buffers = ReferenceOutputs([]), {}
    if specification.making_bytes:
        model = specification.architecture.saved(progress)
        if not in_place and not specification.cast:
            state_dict = without(model.state_dict(), specification.missing)
            files |= ALL_LAYOUTS[specification.layout].save_of(model, state_dict, folder, save)
        buffers = nonpersistent_digests(model, DTYPES.get(specification.cast)) if user else {}
        cast(model, DTYPES.get(specification.cast))
        if not user:
            reference = ReferenceOutputs(specification.architecture.outputs(model))
        elif specification.cast or not user.conversion.dtypes:  # In a dtype that it is not built for it may fail.
            reference = user.reference_outputs(model)
        if specification.missing:
            reference = replace(reference, compared=Comparability.IN_PART_NEW)
    read = dict(LAYOUTS[specification.layout].read(in_place.path)) if in_place else model.state_dict()
    kept = digests(without(read, specification.missing), DTYPES.get(specification.cast))
    files[DIGESTS] = save(RawContent([json.dumps(kept).encode()]), folder / DIGESTS)
    files[LOGITS] = save_digested(reference.outputs if user else reference.outputs[0], folder / LOGITS, progress)
    known: dict[str, Any] = {}
    if user:
        known["answers"] = {"compared": reference.compared, "changed": reference.changed}
        known["beside"] = {name: [one.as_json() for one in right] for name, right in buffers.items()}
    if specification.missing:
        found = initial_values(model, specification.missing)
        known["starts"] = {name: [asdict(one) for one in values] for name, values in found.items()}
    with (folder / MANIFEST).open("x") as file:
        json.dump(specification.manifest() | known | {"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def make_sparse(specification: Specification, folder: Path) -> None:
    """Write a checkpoint into `folder`, which is new, with holes for the bytes: a plan does not read them.

    It has no logits and no manifest, and takes some KB of disk for each tensor, whatever its size.
    """
    folder.mkdir()
    skeleton = specification.saved_state
    save = SPARSE.get(specification.layout) or LAYOUTS[specification.layout].save
    with FakeTensorMode():
        save(_fake(skeleton), folder, save_sparse)
    if specification.layout in FOREIGN:
        ends = retyped(skeleton, cast_dtypes(skeleton, DTYPES.get(specification.cast)))
        kinds = {
            name: TensorDigest(value.dtype, tuple(value.shape), "").as_json()
            for name, value in ends.items()
            if isinstance(value, Tensor)
        }
        (folder / DIGESTS).write_text(json.dumps(kinds), encoding="utf-8")


def _fake(skeleton: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict of a skeleton with fake tensors on the host, which share memory in the same way."""
    wholes: dict[torch.UntypedStorage, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in wholes:
            wholes[storage] = torch.empty(storage.nbytes() // tensor.element_size(), dtype=tensor.dtype)
        return wholes[storage].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    return {name: fake(value) if isinstance(value, Tensor) else value for name, value in skeleton.items()}

"""A checkpoint on disk, with the digests, outputs and initial values recorded when it was made."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoints.file_identity import FileIdentity, require_unchanged
from model.checkpoints.manifest import DIGESTS, LOGITS, MANIFEST, UNREAD_FILES
from model.checkpoints.specification import Specification
from model.digest import TensorDigest
from model.layouts.foreign import ALL_LAYOUTS, FOREIGN
from model.layouts.layouts import LAYOUTS
from model.values.initial_values import InitialValues
from model.values.outputs import Comparability, ReferenceOutputs


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk that fits its specification.

    `file_identities` are those of its files when they were found to be sound; without any, no change is noticed.
    `weights_folder` is the folder of another checkpoint that has the weights; None: they are in `folder`.
    """

    specification: Specification
    folder: Path
    file_identities: tuple[FileIdentity, ...] = ()
    weights_folder: Path | None = None

    @property
    def _weights(self) -> Path:
        return self.weights_folder or self.folder

    @property
    def path(self) -> Path:
        """The file, or the folder of files, that a strategy is given."""
        if self.specification.in_place:
            return self.specification.in_place.path
        return self._weights / ALL_LAYOUTS[self.specification.layout].entrance

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that a load reads."""
        if self.specification.in_place:
            return self.specification.in_place.files
        files = (path for path in self._weights.rglob("*") if path.is_file())
        return tuple(sorted(path for path in files if path.name not in UNREAD_FILES))

    def require_unchanged(self) -> None:
        """Raise `UntrustedCheckpoint` for a file that has changed since it was found to be sound."""
        require_unchanged(self.folder, self.file_identities)

    def identity(self) -> str | None:
        """Return the SHA-256 of what was saved, equal on all machines; None where no bytes were saved."""
        if not (self._weights / MANIFEST).exists():
            return None
        files = json.loads((self._weights / MANIFEST).read_bytes())["files"]
        # Of the user's own files the digests are here. A foreign library need not write the same bytes twice, and
        # processors differ in what they compute.
        is_digested = self.specification.in_place or self.specification.layout in FOREIGN
        kept = {DIGESTS} if is_digested else files.keys() - {LOGITS, DIGESTS}
        return hashlib.sha256(json.dumps({name: files[name]["sha256"] for name in sorted(kept)}).encode()).hexdigest()

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """Yield every saved tensor with its name, mapped; of what a foreign library saved, the digest after a cast."""
        if self.specification.layout in FOREIGN:
            return iter(self.digests().items())
        return LAYOUTS[self.specification.layout].read(self.path)

    def digests(self) -> dict[str, TensorDigest]:
        """Return the digest of every tensor that a load ends with, made when the checkpoint was made or found sound."""
        return _digests(self.folder)

    def outputs(self) -> list[Tensor]:
        """Return the first outputs of the saved model, on the host: for GPT-2 logits `[1, 3, vocabulary]`."""
        saved = torch.load(self.folder / LOGITS, map_location="cpu", weights_only=True)
        return saved if isinstance(saved, list) else [saved]

    def reference_outputs(self) -> ReferenceOutputs:
        """Return the first outputs, and how those of other models compare with them."""
        if self.specification.user_model is None:
            return ReferenceOutputs(self.outputs())
        known = json.loads((self.folder / MANIFEST).read_bytes())["answers"]
        return ReferenceOutputs(self.outputs(), Comparability(known["compared"]), tuple(known["changed"]))

    def nonpersistent_digests(self) -> dict[str, list[TensorDigest]]:
        """Return digests of the user's non-persistent buffers, but for those that a forward pass changes."""
        if self.specification.user_model is None:
            return {}
        known = json.loads((self.folder / MANIFEST).read_bytes())
        left = known.get("beside", {}).keys() - set(known["answers"]["changed"])
        return {name: [TensorDigest.from_json(one) for one in known["beside"][name]] for name in sorted(left)}

    def initial_values(self) -> dict[str, list[InitialValues]]:
        """Return the initial values of tensors that the checkpoint lacks, by their names."""
        if not self.specification.missing:
            return {}
        known = json.loads((self.folder / MANIFEST).read_bytes())["starts"]
        return {name: [InitialValues(**one) for one in values] for name, values in known.items()}


def _digests(folder: Path) -> dict[str, TensorDigest]:
    kept = json.loads((folder / DIGESTS).read_bytes())
    return {name: TensorDigest.from_json(digest) for name, digest in kept.items()}

"""Identity of a checkpoint: the model, its dtype, the layout, and a cast."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from torch import nn
from torch.utils.serialization import config as serialization

from model.architecture import DTYPES, Architecture, RandomGPT2
from model.casting import Dtypes, retyped
from model.checkpoints.footprint import Footprint, SavedFootprint, files_of, footprint, saved_footprint
from model.layouts.foreign import ALL_LAYOUTS
from model.pretrained_gpt2 import PretrainedGPT2
from model.state_dict import without
from model.user.source import Source
from model.user.user_model import UserModel

# Zip directories, pickles and logits, beside the tensors' own bytes.
OVERHEAD_BYTES_PER_TENSOR = 4096


# The suite's own GPT-2, and those of libraries that load no other models than theirs.
FAMILIES: dict[str, Callable[[str, str], Architecture]] = {"": RandomGPT2, "transformers": PretrainedGPT2}


@dataclass(frozen=True)
class Specification:
    """A checkpoint by its size of `SIZES`, dtype of `DTYPES` and layout of `ALL_LAYOUTS`, or by the user's model."""

    size: str
    dtype: str
    layout: str
    user_model: UserModel | None = None
    # The library whose GPT-2 it is, of `FAMILIES`.
    family: str = ""
    # The dtype that floating-point weights end in, of `DTYPES`; "": the one that they are saved in.
    cast: str = ""
    # A copy is made of the user's checkpoint: some loaders would not find it where it is.
    copied: bool = False

    @property
    def architecture(self) -> Architecture:
        return self.user_model or FAMILIES[self.family](self.size, self.dtype)

    @property
    def name(self) -> str:
        to = f"to-{self.cast}" if self.cast else ""
        if self.user_model is None:
            return "-".join(filter(None, ("gpt2", self.size, self.dtype, self.layout, self.family, to)))
        digest = hashlib.sha256(repr(replace(self.user_model, cast="")).encode()).hexdigest()[:8]
        return "-".join(filter(None, ("own", self.size, digest, self.layout, "copied" if self.copied else "", to)))

    def build(self) -> nn.Module:
        """A freshly initialised model of this size and dtype; a meta skeleton under `torch.device("meta")`."""
        return self.architecture.build()

    @property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of a load: the dtype that weights end in, and names that are not saved."""
        asked = {"dtype": DTYPES[self.cast] if self.cast else None, "missing": self.missing}
        return {name: value for name, value in asked.items() if value}

    @property
    def missing(self) -> tuple[str, ...]:
        """Names in the model that the checkpoint lacks."""
        return self.user_model.missing if self.user_model else ()

    @property
    def in_place(self) -> Source | None:
        """The user's checkpoint if it is loaded where it is; None if this one is made, or saved in another layout."""
        source = self.user_model.source if self.user_model else None
        fits = source and source.is_plain and source.layout == self.layout and not self.copied
        return source if fits else None

    @property
    def weights(self) -> "Specification | None":
        """The checkpoint that has the weights of this one, which itself holds outputs and digests after a cast.

        None: it has weights of its own, or the user's.
        """
        return (
            replace(self, cast="", user_model=self.user_model and replace(self.user_model, cast=""))
            if self._is_of_another
            else None
        )

    @property
    def _is_of_another(self) -> bool:
        return bool(self.cast) and self.in_place is None

    @property
    def saved_state(self) -> dict[str, Any]:
        """The state dict that is saved, on meta."""
        return without(retyped(self.architecture.skeleton().state_dict(), dict(self._dtypes)), self.missing)

    @property
    def _dtypes(self) -> Dtypes:
        return self.user_model.conversion.dtypes if self.user_model else ()

    @property
    def footprint(self) -> Footprint:
        """Bytes of the model that a load returns."""
        return footprint(self.architecture, self.cast)

    @property
    def saved(self) -> SavedFootprint:
        """Bytes of the tensors in the checkpoint."""
        return saved_footprint(self.architecture, self._dtypes, self.missing, self.cast, self.layout, self.in_place)

    @property
    def files(self) -> tuple[tuple[str, ...], ...]:
        """Names of the tensors in each file of the checkpoint."""
        return tuple(tuple(part) for part in files_of(self.layout, self.in_place, self.saved_state))

    @property
    def checkpoint_bytes(self) -> int:
        return self.saved.checkpoint_bytes

    @property
    def largest_file_bytes(self) -> int:
        """Bytes of the tensors in the largest file."""
        return self.saved.largest_file_bytes

    @property
    def making_bytes(self) -> int:
        """Memory that making the checkpoint takes; 0 where no model has to be built for it."""
        if self.in_place and self.user_model and self.user_model.make_input is None and not self.missing:
            return 0
        saved = self.saved
        return max(saved.checkpoint_bytes, self.footprint.state_bytes) + (saved.largest_bytes if self.cast else 0)

    @property
    def disk_bytes(self) -> int:
        """Bytes of the checkpoint on disk, at most."""
        taken = 0 if self.in_place or self._is_of_another else self.checkpoint_bytes
        return taken + (self.footprint.tensors + 64) * OVERHEAD_BYTES_PER_TENSOR

    def manifest(self) -> dict[str, Any]:
        """Return what identifies the content: a checkpoint on disk with another value is another one."""
        to = {"cast": self.cast} if self.cast else {}
        return self.architecture.identity() | {"schema": 2, "layout": self.layout} | to | self._written_by()

    def _written_by(self) -> dict[str, Any]:
        """Return the versions and settings that decide how the same weights lie on disk."""
        layout = ALL_LAYOUTS[self.layout]
        if library := layout.library:
            settings = {"saved_with": dict(layout.saved_with)} if layout.saved_with else {}
            return {"written_by": f"{library} {version(library)}"} | settings
        return {
            "torch_format": {
                "container": "zip",
                "storage_alignment": serialization.save.storage_alignment,
                "byteorder": sys.byteorder,
            }
        }

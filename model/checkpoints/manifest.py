"""Comparison of a checkpoint on disk with its manifest and with a specification."""

import hashlib
import json
from pathlib import Path
from typing import Any

from model.checkpoints.specification import Specification
from model.layouts.files import ManifestEntry

MANIFEST = "manifest.json"
LOGITS = "logits.pt"
DIGESTS = "digests.json"
# Files of a checkpoint's folder that no load reads.
UNREAD_FILES = (MANIFEST, LOGITS, DIGESTS)


def misfit(specification: Specification, folder: Path) -> str | None:
    """Return the reason why `folder` is not the checkpoint of `specification`; None if it is, to the bit."""
    try:
        return _misfit(specification, folder, json.loads((folder / MANIFEST).read_bytes()))
    except FileNotFoundError:
        return "it has no manifest: its making was interrupted"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"


def _misfit(specification: Specification, folder: Path, manifest: dict[str, Any]) -> str | None:
    if specification.user_model and not {"answers", "beside"} <= manifest.keys():
        return "less is known of its model than now"
    if differing := {key for key, value in specification.manifest().items() if manifest.get(key) != value}:
        return f"its {', '.join(sorted(differing))} differs"
    files = manifest["files"]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    if differing := found ^ set(files):
        return f"{min(differing)} is {'not in its manifest' if min(differing) in found else 'missing'}"
    changes = (_change(folder / relative, entry) for relative, entry in files.items())
    return next((change for change in changes if change), None)


def _change(path: Path, entry: ManifestEntry) -> str | None:
    """Return the difference between a file and its entry in the manifest; None if there is none."""
    if (size := path.stat().st_size) != entry["bytes"]:
        return f"{path.name} has {size:,} bytes, not {entry['bytes']:,}"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
            return f"{path.name} has changed since it was written"
    return None

"""Identities of files, which show whether a file changed after it was examined."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from model.examine.trust import UntrustedCheckpoint


@dataclass(frozen=True)
class FileIdentity:
    """Identity of a file below a checkpoint's folder: it differs for another file, and for a changed one."""

    name: str
    inode: int
    bytes: int
    mtime_ns: int
    # Nobody can set it: a file that was changed, and given its old `mtime_ns`, has another one.
    ctime_ns: int


def file_identities(folder: Path, elsewhere: Iterable[Path] = ()) -> tuple[FileIdentity, ...]:
    """Return the identity of every file below `folder`, and of those `elsewhere`."""
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return tuple(_identity(folder, path) for path in (*kept, *elsewhere))


def _identity(folder: Path, path: Path) -> FileIdentity:
    status = path.stat()
    name = path.relative_to(folder) if path.is_relative_to(folder) else path.absolute()
    return FileIdentity(str(name), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _change(before: FileIdentity, now: FileIdentity) -> str:
    if now.inode != before.inode:
        return "was replaced by another file while it was in use"
    if now.bytes != before.bytes:
        return f"was changed from {before.bytes:,} bytes to {now.bytes:,} while it was in use"
    return "was written to while it was in use"


def require_unchanged(folder: Path, file_identities: Iterable[FileIdentity]) -> None:
    """Raise `UntrustedCheckpoint` for a file, below `folder` or elsewhere, that has another identity now."""
    for identity in file_identities:
        try:
            found = _identity(folder, folder / identity.name)
        except OSError as error:
            reason = f"was sound, and can no longer be found: {error.strerror}"
            raise UntrustedCheckpoint(folder / identity.name, None, reason) from None
        if found != identity:
            raise UntrustedCheckpoint(folder / identity.name, None, _change(identity, found))
